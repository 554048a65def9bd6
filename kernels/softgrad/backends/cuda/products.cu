// Jacobian products: K tangents for one read of the point.
//
//   v, out   (K, rows, C)      point   (rows, C): logits, or the softmax (its logarithm, for the log_ pair)
//
//   softmax        p (u − Σ p u), u = v − v[k], k the first largest class: JVP and VJP, for J is symmetric
//   log_jvp        u − Σ p u
//   log_vjp        v − p Σ v
//
// Tangents are carried divided by a power of two, the unit of their row, so that products with lifted exponentials stay
// in range.  They are read from memory at each walk: what was read once is in the caches of the multiprocessor.
#include "rows.cuh"

namespace softgrad {

struct ProductArgs {
  Shape shape;
  Strided point, v, out;
  int64 tangents, v_step, out_step;  // K, and the strides of K in elements
};

enum ProductMode { SOFTMAX_PRODUCT, LOG_JVP, LOG_VJP };

template <int MODE, bool LOGITS, class T, class TV, class Real, class Team, int V>
DEVICE void products(const ProductArgs& a) {
  using Rows = Row<T, Real, Team, V>;
  using F = Format<Real>;
  constexpr int WIDTH = Rows::WIDTH;
  constexpr bool LOGARITHMS = !LOGITS && MODE != SOFTMAX_PRODUCT;
  // A class of probability 0 adds nothing to Σ p u, even where the tangent is NaN; a given probability is taken as it is.
  constexpr bool SKIPS = MODE != LOG_VJP && (LOGITS || MODE == LOG_JVP);
  Team team;
  const int64 r = team.row();
  const bool present = r < a.shape.rows;
  const At at(present ? r : 0, a.shape);
  const int64 classes = present ? a.shape.classes : 0;
  const Span<T, Real> point(a.point, at, classes);
  const auto read = [&](int64 j, Real(&x)[WIDTH]) { point.load(j, -infinity<Real>(), x); };

  Rows row{typename Rows::Steps(team, classes)};
  row.load(read);
  const Real lifted_one = Shift<Real>(Real(0)).exp(Real(0));
  Real m = -infinity<Real>();
  row.each(read, [&](int64, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) m = nan_max(m, x[i]);
  });
  m = team.all(m, Larger{});
  const bool ordinary = LOGITS ? is_finite(m) : !is_nan(m);
  const Shift<Real> shift(LOGITS && ordinary ? m : Real(0));
  const auto exponential = [&](Real x) {
    // Padding is −inf, and no probability: it must come out as 0.
    return LOGITS || LOGARITHMS ? shift.exp(x) : x == -infinity<Real>() ? Real(0) : x * lifted_one;
  };
  const auto exponentials = [&](Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) x[i] = exponential(x[i]);
  };
  SumAndFirst<Real> found{Sum<Real>(), NOWHERE};
  row.each(read, [&](int64 j, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = WIDTH - 1; i >= 0; --i)
      if (x[i] == m && j + i < found.first && j + i < classes) found.first = j + i;
    exponentials(x);
    found.sum.add(tree_sum(x));
  });
  found = team.all(found, Added{});
  const Sum<Real> s = LOGITS ? found.sum : Sum<Real>(lifted_one, Real(0));
  const int64 k = found.first < classes ? found.first : 0;

  Strided v_row = a.v, out_row = a.out;
  for (int64 tangent = 0; tangent < a.tangents; ++tangent) {
    const Span<TV, Real> v(v_row, at, classes);
    const Span<T, Real> out(out_row, at, classes);
    const Real v_k = MODE == LOG_VJP || classes == 0 ? Real(0) : v[k];
    const auto read_u = [&](int64 j, Real(&u)[WIDTH]) {
      v.load(j, v_k, u);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) u[i] -= v_k;
    };

    Real largest = Real(0);
    row.each(read, [&](int64 j, Real(&e)[WIDTH]) {
      if constexpr (V == 0) exponentials(e);
      Real u[WIDTH];
      read_u(j, u);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        if ((!SKIPS || e[i] != Real(0)) && magnitude(u[i]) > largest) largest = magnitude(u[i]);
    });
    const Real unit = unit_for(team.all(largest, Larger{}));
    const Real inverse = Real(1) / unit;

    Sum<Real> total;
    row.each(read, [&](int64 j, Real(&e)[WIDTH]) {
      if constexpr (V == 0) exponentials(e);
      Real x[WIDTH];
      read_u(j, x);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        x[i] = SKIPS && e[i] == Real(0) ? Real(0) : MODE == LOG_VJP ? x[i] * inverse : e[i] * (x[i] * inverse);
      total.add(tree_sum(x));
    });
    total = team.all(total, Added{});
    // Every thread has read v[k]: a result may now take its place.
    const Real broken = ordinary ? Real(0) : nan<Real>();

    if constexpr (MODE == LOG_VJP) {
      // p Σ v, where Σ v may leave the range though the product does not.
      const Factor<Real> mass(Sum<Real>(total.high * unit, total.low * unit), s), mass_in_units(total, s);
      row.each(read, [&](int64 j, Real(&e)[WIDTH]) {
        if constexpr (V == 0) exponentials(e);
        Real x[WIDTH];
        v.load(j, Real(0), x);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
          x[i] = (x[i] - (mass.finite() ? mass(e[i]) : mass_in_units(e[i]) * unit)) + broken;
        out.store(j, x);
      });
    } else {
      const Real mean = total.value() / s.value();
      const Factor<Real> over_s(unit, s);
      row.each(read, [&](int64 j, Real(&e)[WIDTH]) {
        if constexpr (V == 0) exponentials(e);
        Real x[WIDTH];
        read_u(j, x);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
          x[i] = x[i] * inverse - mean;
          if constexpr (MODE == LOG_JVP)
            x[i] *= unit;
          else
            x[i] = LOGITS && e[i] == Real(0) ? Real(0) : over_s(x[i] * e[i]);
          x[i] += broken;
        }
        out.store(j, x);
      });
    }
    v_row.data = (TV*)v_row.data + a.v_step;
    out_row.data = (T*)out_row.data + a.out_step;
  }
  team.leave();
}

}  // namespace softgrad

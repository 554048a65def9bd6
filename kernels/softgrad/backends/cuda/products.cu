// Jacobian products: K tangents for one read of the point.
//
//   v, out   (K, rows, C)      point   (rows, C): logits, or the softmax (its logarithm, for the log_ pair)
//
//   softmax        p (u − Σ p u), u = v − v[k], k the first largest class: JVP and VJP, for J is symmetric
//   log_jvp        u − Σ p u
//   log_vjp        v − p Σ v
//
// Tangents are carried divided by a power of two, the unit of their row, so that products with lifted exponentials stay
// in range.  Where a lane keeps the point, it keeps the tangent too, read before anything is waited for, as far as 128
// registers hold both, or, of longer rows, shared memory does; else tangents are read again at each walk, from the caches.
#include "slabs.cuh"

namespace softgrad {

struct ProductArgs {
  Shape shape;
  Strided point, v, out;
  int64 tangents, v_step, out_step;  // K, and the strides of K in elements
  DEVICE bool follow() const { return tangents == 1 && point.follows(shape) && v.follows(shape) && out.follows(shape); }
};

enum ProductMode { SOFTMAX_PRODUCT, LOG_JVP, LOG_VJP };

template <int MODE, bool LOGITS, class T, class TV, class Real, class Team, int V>
DEVICE void products(const ProductArgs& a, Team team = Team()) {
  using Rows = Row<T, Real, Team, V>;
  using F = Format<Real>;
  using Index = typename Rows::Index;
  constexpr int WIDTH = Rows::WIDTH;
  constexpr bool LOGARITHMS = !LOGITS && MODE != SOFTMAX_PRODUCT;
  // A class of probability 0 adds nothing to Σ p u, even where the tangent is NaN; a given probability is taken as it is.
  constexpr bool SKIPS = MODE != LOG_VJP && (LOGITS || MODE == LOG_JVP);
  const int64 r = team.row();
  const bool present = r < a.shape.rows;
  const At at(present ? r : 0, a.shape);
  const int64 classes = team.classes(present, a.shape.classes);
  const Span<T, Real> point(a.point, at, classes);
  const auto read = [&](Index j, Real(&x)[WIDTH]) { point.load(j, -infinity<Real>(), x); };

  Rows row(team, classes);
  Strided v_row = a.v, out_row = a.out;
  // Tangents of double are differences in double, before they are numbers of type Real.
  using Wide = typename Wider<TV, Real>::Type;
  constexpr bool KEEPS = MODE != LOG_VJP && V > 0 && V * WIDTH * (int)sizeof(Wide) <= 64;
  Wide kept_v[KEEPS ? V : 1][WIDTH];
  // In shared memory, behind the point, where it is as long.
  constexpr bool HOLDS = V < 0 && WIDTH * (int)sizeof(TV) == 16;
  const auto keep_v = [&](int first) INLINED {
    if constexpr (KEEPS)
      load_row<V, Rows::Steps::STEP>(team, v_row, a.shape, Span<TV, Wide>(v_row, at, classes), 2 * Results<T, Real, Team, V>::PLACE,
                                     first, Wide(0), kept_v);
    if constexpr (HOLDS) Held<TV, Team, -V, WIDTH>(1).fill(row.steps, Span<TV, Wide>(v_row, at, classes));
    if constexpr (V < 0) copies_arrive();
  };

  load_row(a.point, a.shape, point, -infinity<Real>(), row);
  if constexpr (V < 0) Held<T, Team, -V, WIDTH>(0).fill(row.steps, point);
  keep_v(row.steps.first);
  Real m = -infinity<Real>();
  row.each(read, [&](Index, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) m = nan_max(m, x[i]);
  });
  m = team.all(m, Larger{});
  const bool ordinary = LOGITS ? is_finite(m) : !is_nan(m);
  const Shift<Real> shift(LOGITS && ordinary ? m : Real(0));
  const auto exponential = [&](Real x) INLINED {
    // Padding is −inf, and no probability: it must come out as 0.
    return LOGITS || LOGARITHMS ? shift.exp(x) : x == -infinity<Real>() ? Real(0) : lifted(x);
  };
  const auto exponentials = [&](Real(&x)[WIDTH]) INLINED {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) x[i] = exponential(x[i]);
  };
  Sum<Real> sum;
  int64 first = NOWHERE;
  row.each(read, [&](Index j, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = WIDTH - 1; i >= 0; --i)
      if (x[i] == m && j + i < first && j + i < classes) first = j + i;
    exponentials(x);
    sum.add(tree_sum(x));
  });
  const SumAndFirst<Real> found = team.all(SumAndFirst<Real>{Handed<Real>(sum), first}, Added{});
  const Sum<Real> s = LOGITS ? found.sum.back() : Sum<Real>(F::LIFTED_ONE, Real(0));
  const int64 k = found.first < classes ? found.first : 0;

  for (int64 tangent = 0; tangent < a.tangents; ++tangent) {
    const Span<TV, Wide> v(v_row, at, classes);
    const Results<T, Real, Team, V> out(team, out_row, a.shape, at, classes);
    const Wide v_k = MODE == LOG_VJP ? Wide(0) : team.kept([&] {
      if constexpr (Team::TURNS > 1) return pick(kept_v[0], (int)k);
      return classes == 0 ? Wide(0) : v[k];
    });
    const auto read_u = [&](int n, Index j, Real(&u)[WIDTH]) INLINED {
      Wide read_again[WIDTH];
      if constexpr (HOLDS)
        Held<TV, Team, -V, WIDTH>(1).load(n, j, classes, v_k, read_again);
      else if constexpr (!KEEPS)
        v.load(j, v_k, read_again);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) u[i] = Real((KEEPS ? kept_v[KEEPS ? n : 0][i] : read_again[i]) - v_k);
    };

    Real largest = Real(0);
    row.each_numbered(read, [&](int n, Index j, Real(&e)[WIDTH]) {
      if constexpr (V <= 0) exponentials(e);
      Real u[WIDTH];
      read_u(n, j, u);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        if ((!SKIPS || e[i] != Real(0)) && magnitude(u[i]) > largest) largest = magnitude(u[i]);
    });
    const Real unit = unit_for(team.all(largest, Larger{}));
    const Real inverse = reciprocal(unit);  // a power of two: exact

    Sum<Real> total;
    row.each_numbered(read, [&](int n, Index j, Real(&e)[WIDTH]) {
      if constexpr (V <= 0) exponentials(e);
      Real x[WIDTH];
      read_u(n, j, x);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        x[i] = SKIPS && e[i] == Real(0) ? Real(0) : MODE == LOG_VJP ? x[i] * inverse : e[i] * (x[i] * inverse);
      total.add(tree_sum(x));
    });
    total = all_of(team, total);
    // Every thread has read v[k]: a result may now take its place.
    const Real broken = ordinary ? Real(0) : nan<Real>();

    if constexpr (MODE == LOG_VJP) {
      // p Σ v, where Σ v may leave the range though the product does not.
      const Factor<Real> mass(Sum<Real>(total.high * unit, total.low * unit), s), mass_in_units(total, s);
      row.each_numbered(read, [&](int n, Index j, Real(&e)[WIDTH]) {
        if constexpr (V <= 0) exponentials(e);
        Real x[WIDTH];
        read_u(n, j, x);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
          x[i] = (x[i] - (mass.finite() ? mass(e[i]) : mass_in_units(e[i]) * unit)) + broken;
        out.store(j, x);
      });
    } else {
      // Where u is 0, as at k, the mean is all there is: it keeps the digits that it has as a lifted number.
      const Real drop = Real(0.25) * F::NEAR_DROP;
      const Real lifted_mean = total.value() / (s.value() * drop), mean = lifted_mean * drop;
      const Factor<Real> over_s(unit, s);
      row.each_numbered(read, [&](int n, Index j, Real(&e)[WIDTH]) {
        if constexpr (V <= 0) exponentials(e);
        Real x[WIDTH];
        read_u(n, j, x);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
          const Real u = x[i] * inverse;
          if constexpr (MODE == LOG_JVP)
            x[i] = u != Real(0) ? (u - mean) * unit : unit < Real(1) ? -mean * unit : -lifted_mean * (unit * drop);
          else if (LOGITS && e[i] == Real(0))
            x[i] = Real(0);
          else
            x[i] = over_s(u == Real(0) ? -lifted_mean * (e[i] * drop) : (u - mean) * e[i]);
          x[i] += broken;
        }
        out.store(j, x);
      });
    }
    out.done();
    v_row.data = (TV*)v_row.data + a.v_step;
    out_row.data = (T*)out_row.data + a.out_step;
    if (tangent + 1 < a.tangents) keep_v(row.steps.first);
  }
  team.leave();
}

}  // namespace softgrad

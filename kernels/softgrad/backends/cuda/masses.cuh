// A row of a cross-entropy with any option: target masses, the softcap, and the sums that loss and derivatives share.
//
//   h        mass on the integer target t, w_t (1 − ε); 0 for probabilities
//   D_j      the masses spread over all classes: w_j ε / C, or w_j (T_j (1 − ε) + ε / C)
//   F        h + ΣD + 2 ζ lse, what p is multiplied by in the gradient
//
// The row is read again at each walk, from the caches as far as they reach.
#pragma once
#include "losses.cuh"

namespace softgrad {

// z' = s tanh(z / s), and its derivatives at z, s > 0.  Functions that are called, not inlined: with a copy for each class
// of a chunk in each walk, kernels that few calls ask to cap would be several times as long, and as long in the compiling.
template <class Real>
__device__ __noinline__ Real capped(Real z, Real s) {
  const Real x = z / s;
  // tanh(x) = x to the last digit, and z / s may have lost digits below the smallest normal number.
  return magnitude(x) < Real(1e-9) ? z : s * Real(tanh(x));
}
// 4q / (1 + q)², q = exp(−2 |z / s|): it keeps its digits where 1 − tanh² has none.
template <class Real>
__device__ __noinline__ Real capped_slope(Real z, Real s) {
  // The quotient's rounding error is carried along: it would cost half an ulp of the exponent.
  const Real x = magnitude(z) / s, rest = is_finite(x) ? fused(-x, s, magnitude(z)) / s : Real(0);
  Real q = Real(exp(Real(-2) * x));
  q -= Real(2) * rest * q;
  return Real(4) * q / ((Real(1) + q) * (Real(1) + q));
}
// From z and the slope there.
template <class Real>
__device__ __noinline__ Real capped_curvature(Real z, Real s, Real slope) {
  return slope * Real(tanh(z / s)) * (Real(-2) / s);
}

// That of a loss, which may have none; −inf stays masked, +inf stays (its row is NaN).
template <class Real>
struct Softcap {
  Real s;  // 0: no cap

  DEVICE Real operator()(Real z) const { return s == Real(0) || z - z != Real(0) ? z : capped(z, s); }
  DEVICE Real slope(Real z) const { return s == Real(0) ? Real(1) : capped_slope(z, s); }
  DEVICE Real curvature(Real z, Real slope) const { return s == Real(0) ? Real(0) : capped_curvature(z, s, slope); }
};

// A row's masses; T the logits' dtype, TT that of probabilities.
template <class TT, class Real>
struct Masses {
  bool dense;
  Real keep, smooth;  // 1 − ε, ε / C
  const Real* weight;
  int64 weight_step, t;
  Span<TT, Real> targets;
  Real h;

  DEVICE Masses(const LossArgs& a, const At& at, const Charge<Real>& charge, int64 classes)
      : dense(a.dense), keep(Real(1) - Real(a.smoothing)), smooth(Real(a.smoothing) / Real(a.shape.classes)),
        weight((const Real*)a.weight.data), weight_step(a.weight.classes), t(a.dense ? -1 : charge.t),
        targets(a.dense ? a.targets : a.z, at, classes), h(a.dense ? Real(0) : charge.weight * keep) {}

  template <int N>
  DEVICE void load(int64 j, Real (&d)[N]) const {
    if (dense)
      targets.load(j, Real(0), d);
    else
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] = Real(0);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      d[i] = j + i < targets.classes ? fused(d[i], keep, smooth) : Real(0);
      if (weight && j + i < targets.classes) d[i] *= weight[(j + i) * weight_step];
    }
  }
};

// m, the sums of e, and what follows from them, once a team has agreed.
template <class Real>
struct Agreed {
  Real m, z_t, l, lse;
  Sum<Real> s, rest_t;
  Real e_t, spread;  // ΣD
  int64 k;           // the first largest class
  bool finite;
};

// The walks that every loss with options begins with.
template <class T, class TT, class Real, class Team>
struct LossRow {
  using Rows = Row<T, Real, Team, 0>;
  static constexpr int WIDTH = Rows::WIDTH;
  Team& team;
  int64 classes;
  Span<T, Real> z;
  Softcap<Real> cap;
  Charge<Real> charge;
  Masses<TT, Real> masses;
  Rows row;

  DEVICE LossRow(Team& team, const LossArgs& a, const At& at, int64 classes)
      : team(team), classes(classes), z(a.z, at, classes), cap{Real(a.softcap)}, charge(weighed(a, at)),
        masses(a, at, charge, classes), row(team, classes) {}

  static DEVICE Charge<Real> weighed(const LossArgs& a, const At& at) {
    Charge<Real> charge(a, at);
    charge.weigh(a, at);
    return charge;
  }

  DEVICE void read(int64 j, Real (&x)[WIDTH]) const {
    z.load(j, -infinity<Real>(), x);
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) x[i] = cap(x[i]);
  }
  // visit(j, z'): each chunk of softcapped logits.
  template <class Visit>
  DEVICE void each(Visit visit) {
    row.each([&](int64 j, Real(&x)[WIDTH]) { read(j, x); }, visit);
  }

  DEVICE Agreed<Real> agree() {
    Agreed<Real> to;
    to.m = -infinity<Real>();
    each([&](int64, Real(&x)[WIDTH]) {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) to.m = nan_max(to.m, x[i]);
    });
    to.m = team.all(to.m, Larger{});
    to.finite = is_finite(to.m);
    const Shift<Real> shift(to.finite ? to.m : Real(0));
    const Real e_k = shift.exp(to.finite ? to.m : Real(0));
    const bool has_t = masses.t >= 0 && classes > 0;
    to.z_t = team.kept([&] { return has_t ? cap(z[masses.t]) : -infinity<Real>(); });
    to.e_t = has_t ? shift.exp(to.z_t) : Real(0);

    // Neither t nor the largest classes are in this sum: both are added where they belong, never taken away.
    Sum<Real> sum, spread;
    int64 count = 0;
    int64 first = NOWHERE;
    each([&](int64 j, Real(&x)[WIDTH]) {
      Real e[WIDTH], d[WIDTH];
      masses.load(j, d);
      spread.add(tree_sum(d));
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const bool is_largest = x[i] == to.m && j + i < classes, is_t = j + i == masses.t;
        if (is_largest && j + i < first) first = j + i;
        count += is_largest && !is_t;
        e[i] = is_largest || is_t ? Real(0) : shift.exp(x[i]);
      }
      sum.add(tree_sum(e));
    });
    const Rest<Real> rest = team.all(Rest<Real>{Handed<Real>(sum), count}, Added{});
    sum = rest.sum.back();
    const SumAndFirst<Real> of_masses = team.all(SumAndFirst<Real>{Handed<Real>(spread), first}, Added{});
    to.spread = of_masses.sum.back().value();
    to.k = of_masses.first < classes ? of_masses.first : 0;

    to.rest_t = sum;
    to.rest_t.add(Real(rest.count) * e_k);
    to.s = to.rest_t;
    to.s.add(to.e_t);
    Sum<Real> rest_k = sum;
    const bool t_is_largest = has_t && to.z_t == to.m;
    rest_k.add(Real(t_is_largest ? rest.count : rest.count - 1) * e_k);
    if (!t_is_largest) rest_k.add(to.e_t);
    to.l = log1p_of(rest_k.value() / e_k);
    to.lse = to.m + to.l;
    return to;
  }
};

}  // namespace softgrad

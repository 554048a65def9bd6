// Softmax + cross-entropy with any option: label smoothing, probability targets, z_loss, softcap, weights.
//
//   loss       h (gap_t + l) + Σ D gap + l ΣD + ζ lse², gap = m − z
//   gradient   p F − D; at the target p (F − h) − D_t − h rest_t / s; through the cap where there is one
#include "masses.cuh"

namespace softgrad {

template <class T, class TT, class Real, class Team>
DEVICE void cross_entropy_options(const LossArgs& a, Team team = Team()) {
  using Loss = LossRow<T, TT, Real, Team>;
  constexpr int WIDTH = Loss::WIDTH;
  const int64 r = team.row();
  const bool present = r < a.shape.rows;
  const At at(present ? r : 0, a.shape);
  const int64 classes = present ? a.shape.classes : 0;
  Loss loss(team, a, at, classes);
  const Charge<Real>& charge = loss.charge;
  const Agreed<Real> row = loss.agree();
  const bool dead = charge.fate == Fate::DEAD;
  const bool broken = charge.fate == Fate::BAD || (!dead && !row.finite);
  const Real h = loss.masses.h;

  if (a.loss.data) {
    Sum<Real> gaps;
    loss.each([&](int64 j, Real(&x)[WIDTH]) {
      Real d[WIDTH];
      loss.masses.load(j, d);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        // 0 · ∞ = 0.
        const Real half = Real(0.5) * row.m - Real(0.5) * x[i];
        d[i] = d[i] == Real(0) ? Real(0) : d[i] * half;
      }
      gaps.add(tree_sum(d));
    });
    gaps = all_of(team, gaps);
    if (present && team.speaks()) {
      const double l = (double)row.l, lse = (double)row.lse;
      double value = (double)gaps.value() + 0.5 * ((double)row.spread * l);
      if (h != Real(0)) value += (double)h * (half_gap(row.m, row.z_t) + 0.5 * l);
      if (charge.zeta != Real(0)) value += 0.5 * ((double)charge.zeta * lse * lse);
      put_per_row<T>(a, a.loss, at, dead ? 0.0 : broken ? nan<double>() : value);
    }
  }
  if (a.grad.data) {
    const Results<T, Real, Team, 0> grad(team, a.grad, a.shape, at, classes);
    const Shift<Real> shift(row.finite ? row.m : Real(0));
    const Real but_h = row.spread + Real(2) * charge.zeta * row.lse, scale = charge.scale.value();
    const Factor<Real> all(scale * (h + but_h), row.s), all_but_h(scale * but_h, row.s), only_h(scale * h, row.s);
    const Real at_t = all_but_h.share(row.e_t) - only_h.share(row.rest_t.value());
    loss.each([&](int64 j, Real(&x)[WIDTH]) {
      Real d[WIDTH], z[WIDTH];
      loss.masses.load(j, d);
      if (a.softcap != 0.0) loss.z.load(j, Real(0), z);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const Real e = shift.exp(x[i]);
        Real g = j + i == loss.masses.t ? at_t : all.share(e);
        if (d[i] != Real(0)) g -= scale * d[i];
        if (a.softcap != 0.0) g *= loss.cap.slope(z[i]);
        x[i] = dead ? Real(0) : broken ? nan<Real>() : g;
      }
      grad.store(j, x);
    });
  }
  team.leave();
}

}  // namespace softgrad

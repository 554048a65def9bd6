// Softmax + cross-entropy with integer targets, loss and gradient in one pass; weights and all reductions, no other option.
//
//   z, grad   (rows, C)      targets, loss   (rows)
//
// The target's class is kept out of the sum: rest = Σ_{j≠t} e_j, s = rest + e_t.
//
//   gradient   p_j; at the target p_t − 1 = −rest / s
//   loss       (m − z_t) + l with l = log1p((s − e_k) / e_k); where t is a largest class, s − e_k is rest, which keeps its
//              digits when the row is sure (elsewhere the loss is at least log 2, and a subtraction may cost l some)
#include "losses.cuh"

namespace softgrad {

template <class T, class Real, class Team, int V>
DEVICE void cross_entropy(const LossArgs& a, Team team = Team()) {
  using Rows = Row<T, Real, Team, V>;
  using Index = typename Rows::Index;
  constexpr int WIDTH = Rows::WIDTH;
  const int64 r = team.row();
  const bool present = r < a.shape.rows && a.shape.classes > 0;
  const At at(r < a.shape.rows ? r : 0, a.shape);
  const int64 classes = team.classes(present, a.shape.classes);
  const Span<T, Real> z(a.z, at, classes);
  const auto read = [&](Index j, Real(&x)[WIDTH]) { z.load(j, -infinity<Real>(), x); };

  Rows row(team, classes);
  load_row(a.z, a.shape, z, -infinity<Real>(), row);
  Charge<Real> charge(a, at);
  // A thread that has its row to itself has it in registers.
  const Real z_t = team.kept([&] {
    if constexpr (Team::TURNS > 1) return pick(row.kept[0], (int)charge.t);
    return present ? z[charge.t] : Real(0);
  });
  Real m = -infinity<Real>();
  row.each(read, [&](Index, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) m = nan_max(m, x[i]);
  });
  m = team.all(m, Larger{});
  const Shift<Real> shift(is_finite(m) ? m : Real(0));

  // Puts x in the target's place, where this chunk has it.
  const Index t = (Index)charge.t;
  const auto at_target = [&](Index j, Real(&e)[WIDTH], Real x) INLINED {
    if (t >= j && t < j + WIDTH) replace(e, (int)(t - j), x);
  };
  Sum<Real> rest;
  row.each(read, [&](Index j, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) x[i] = shift.exp(x[i]);
    at_target(j, x, Real(0));
    rest.template add_chunk<V>(tree_sum(x));
  });
  rest = all_of(team, rest);
  Sum<Real> s = rest;
  const Real e_t = shift.exp(z_t);
  s.add(e_t);

  charge.weigh(a, at);
  const bool broken = charge.fate == Fate::BAD || (charge.fate == Fate::COUNTS && !is_finite(m));
  const bool dead = charge.fate == Fate::DEAD;
  if (a.loss.data && r < a.shape.rows && team.speaks()) {
    const Real e_k = shift.exp(m);
    const Real l = log1p_of((z_t == m ? rest.value() : s.value() - e_k) / e_k);
    const double half = half_gap(m, z_t), w = (double)charge.weight;
    const double loss = w == 0.0 && !is_finite(half) ? 0.0 : w * (half + 0.5 * (double)l);
    put_per_row<T>(a, a.loss, at, dead ? 0.0 : broken ? nan<double>() : loss);
  }
  if (a.grad.data) {
    const Results<T, Real, Team, V> grad(team, a.grad, a.shape, at, classes);
    Sum<Real> mass = product(charge.scale.high, charge.weight);
    mass.low += charge.scale.low * charge.weight;
    const Factor<Real> factor(mass, s);
    const Real rest_t = rest.value();
    if (!dead && !broken && factor.finite()) {
      row.each(read, [&](Index j, Real(&x)[WIDTH]) {
        if constexpr (V == 0)
#pragma unroll
          for (int i = 0; i < WIDTH; ++i) x[i] = shift.exp(x[i]);
        at_target(j, x, -rest_t);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = factor(x[i]);
        grad.store(j, x);
      });
    } else {
      // Exactly 0 at a masked class whatever the factor is; dead rows are 0 throughout, broken ones NaN.
      row.each(read, [&](Index j, Real(&x)[WIDTH]) {
        if constexpr (V == 0)
#pragma unroll
          for (int i = 0; i < WIDTH; ++i) x[i] = shift.exp(x[i]);
        at_target(j, x, -rest_t);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = dead ? Real(0) : broken ? nan<Real>() : x[i] == Real(0) ? Real(0) : factor(x[i]);
        grad.store(j, x);
      });
    }
    grad.done();
  }
  team.leave();
}

}  // namespace softgrad

// The cross-entropy's directional derivative and its Hessian product, any option, K tangents.
//
//   jvp   ΣW Σ p u − Σ W u + 2 ζ lse (v_ref + Σ p u), u = v − v_ref, ref the integer target, else the first largest class
//   hvp   p (F (u − Σ p u) + 2 ζ Σ p v), u = v − v[k]; through the cap, g' · curvature · v beside it
//
// Computed in double for every dtype: neither is on anyone's hot path, and no product of large and small factors leaves
// double's range.
#include "masses.cuh"

namespace softgrad {

template <bool HESSIAN, class T, class TT, class TV, class Team>
DEVICE void derivatives(const LossArgs& a, Team team = Team()) {
  using Real = double;
  using F = Format<Real>;
  using Loss = LossRow<T, TT, Real, Team>;
  using Stored = typename Computing<T>::Real;
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
  const bool capped = a.softcap != 0.0;
  const Shift<Real> shift(row.finite ? row.m : 0.0);
  const Real h = loss.masses.h;
  const int64 reference = !HESSIAN && !a.dense ? charge.t : row.k;

  Strided v_row = a.v, out_row = a.out;
  for (int64 tangent = 0; tangent < a.tangents; ++tangent) {
    const Span<TV, Real> v(v_row, at, classes);
    const Real v_ref = team.kept([&] {
      return classes == 0 ? 0.0 : v[reference] * (capped ? loss.cap.slope(loss.z[reference]) : 1.0);
    });
    // u of a chunk; a masked class has none.
    const auto read_u = [&](int64 j, const Real(&x)[WIDTH], const Real(&d)[WIDTH], Real(&u)[WIDTH]) INLINED {
      v.load(j, 0.0, u);
      Stored z[WIDTH];
      if (capped) Span<T, Stored>(a.z, at, classes).load(j, Stored(0), z);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        if (capped) u[i] *= loss.cap.slope(Real(z[i]));
        const bool idle = x[i] == -infinity<Real>() && (HESSIAN || d[i] == 0.0);
        u[i] = j + i >= classes || j + i == reference || idle ? 0.0 : u[i] - v_ref;
      }
    };
    Real largest = 1.0;  // the unit is no less: v_ref is carried in it too
    loss.each([&](int64 j, Real(&x)[WIDTH]) {
      Real d[WIDTH], u[WIDTH];
      loss.masses.load(j, d);
      read_u(j, x, d, u);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i)
        if (magnitude(u[i]) > largest) largest = magnitude(u[i]);
    });
    const Real unit = unit_for(team.all(largest, Larger{})), inverse = 1.0 / unit;
    Sum<Real> moment, drift;
    loss.each([&](int64 j, Real(&x)[WIDTH]) {
      Real d[WIDTH], u[WIDTH];
      loss.masses.load(j, d);
      read_u(j, x, d, u);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        u[i] *= inverse;
        d[i] = d[i] == 0.0 ? 0.0 : d[i] * u[i];
        const Real e = shift.exp(x[i]);
        u[i] = e == 0.0 ? 0.0 : e * u[i];
      }
      moment.add(tree_sum(u));
      drift.add(tree_sum(d));
    });
    // A mean may lie below the smallest normal number, and yet be all there is: as a lifted number it keeps its digits.
    const Real drop = 0.25 * F::NEAR_DROP;
    const Real lifted_mean = all_of(team, moment).value() / (row.s.value() * drop), mean = lifted_mean * drop;
    const Real zeta = 2.0 * charge.zeta, v_mean = v_ref * inverse + mean;

    if constexpr (!HESSIAN) {
      drift = all_of(team, drift);
      Real half = -0.5 * drift.value();
      if (zeta != 0.0) half += 0.5 * zeta * row.lse * v_mean;
      half = half * unit + scaled(0.5 * (h + row.spread) * lifted_mean, drop, unit);
      if (present && team.speaks()) put_per_row<T>(a, out_row, at, dead ? 0.0 : broken ? nan<Real>() : half);
      out_row.data = (char*)out_row.data + a.out_step * (a.summed ? (int64)sizeof(double) : (int64)sizeof(Stored));
    } else {
      const Results<T, Real, Team, 0> out(team, out_row, a.shape, at, classes);
      const Real but_h = row.spread + zeta * row.lse, scale = charge.scale.value();
      // F and ζ in units of a power of two: with lse near the end of the range, F is too.
      const Real all_mass = h + but_h, unit_f = unit_for(Larger{}(magnitude(all_mass), magnitude(zeta)));
      const Real f = all_mass / unit_f, zeta_v_mean = zeta == 0.0 ? 0.0 : zeta / unit_f * v_mean;
      const Factor<Real> by(scale * unit, row.s);
      const Factor<Real> all(scale * all_mass, row.s), all_but_h(scale * but_h, row.s), only_h(scale * h, row.s);
      const Real at_t = all_but_h.share(row.e_t) - only_h.share(row.rest_t.value());
      loss.each([&](int64 j, Real(&x)[WIDTH]) {
        Real d[WIDTH], u[WIDTH];
        loss.masses.load(j, d);
        read_u(j, x, d, u);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
          const Real e = shift.exp(x[i]);
          u[i] *= inverse;
          const Real lifted = u[i] == 0.0 ? -lifted_mean * (e * drop) : (u[i] - mean) * e;
          // The gradient, of which only the cap's curvature asks.
          d[i] = (loss.masses.t - j == i ? at_t : all.share(e)) - scale * d[i];
          x[i] = x[i] == -infinity<Real>() ? 0.0 : by(f * lifted + zeta_v_mean * e, unit_f);
        }
        if (capped) {
          // As they are stored, until they are needed: they take half the registers.
          Stored z[WIDTH];
          typename Computing<TV>::Real w[WIDTH];
          Span<T, Stored>(a.z, at, classes).load(j, -infinity<Stored>(), z);
          Span<TV, typename Computing<TV>::Real>(v_row, at, classes).load(j, 0, w);
#pragma unroll
          for (int i = 0; i < WIDTH; ++i)
            if (z[i] != -infinity<Stored>()) {
              const Real slope = loss.cap.slope(Real(z[i]));
              x[i] = x[i] * slope + d[i] * loss.cap.curvature(Real(z[i]), slope) * Real(w[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = dead ? 0.0 : broken ? nan<Real>() : x[i];
        out.store(j, x);
      });
      out_row.data = (T*)out_row.data + a.out_step;
    }
    v_row.data = (TV*)v_row.data + a.v_step;
  }
  team.leave();
}

}  // namespace softgrad

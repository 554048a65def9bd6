// softmax, log-softmax, log-sum-exp.
//
//   z, out   (rows, C)      lse   (rows)
//
// s = Σ e; p = e / s.  Of log p and lse only l = log1p(rest / e_k) needs the sum, rest being that of the classes other
// than the largest: log p = (z − m) − l, lse = m + l.
#include "slabs.cuh"

namespace softgrad {

struct SoftmaxArgs {
  Shape shape;
  Strided z, out;  // out: per class, or per row (and then its classes are no stride apart) for the log-sum-exp
  DEVICE bool follow() const { return z.follows(shape) && (out.classes == 0 || out.follows(shape)); }
};

enum SoftmaxMode { PROBABILITIES, LOG_PROBABILITIES, LOG_SUM_EXP };

template <int MODE, class T, class Real, class Team, int V>
DEVICE void softmax(const SoftmaxArgs& a, Team team = Team()) {
  using Rows = Row<T, Real, Team, V>;
  using Index = typename Rows::Index;
  constexpr int WIDTH = Rows::WIDTH;
  const int64 r = team.row();
  const bool present = r < a.shape.rows;
  const At at(present ? r : 0, a.shape);
  const int64 classes = team.classes(present, a.shape.classes);
  const Span<T, Real> z(a.z, at, classes);
  const auto read = [&](Index j, Real(&x)[WIDTH]) { z.load(j, -infinity<Real>(), x); };

  Rows row(team, classes);
  load_row(a.z, a.shape, z, -infinity<Real>(), row);
  Real m = -infinity<Real>();
  row.each(read, [&](Index, Real(&x)[WIDTH]) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) m = nan_max(m, x[i]);
  });
  m = team.all(m, Larger{});
  const bool ordinary = is_finite(m);
  const Shift<Real> shift(ordinary ? m : Real(0));

  if constexpr (MODE == PROBABILITIES) {
    Sum<Real> s;
    row.each(read, [&](Index, Real(&x)[WIDTH]) {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) x[i] = shift.exp(x[i]);
      s.template add_chunk<V>(tree_sum(x));
    });
    s = all_of(team, s);
    Real over_s = nan<Real>();
    if (ordinary) over_s = Team::SIZE == 1 && V == 1 ? inverse(s.high) : inverse(s);
    // Found anew, as below: until here the row's numbers want the registers.
    row.forget_places();
    const Results<T, Real, Team, V> out(team, a.out, a.shape, At(present ? r : 0, a.shape), classes);
    row.each(read, [&](Index j, Real(&x)[WIDTH]) {
      if constexpr (V == 0)
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = shift.exp(x[i]);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) x[i] *= over_s;
      out.store(j, x);
    });
    out.done();
  } else {
    Sum<Real> sum;
    Index count = 0;
    row.each(read, [&](Index, Real(&x)[WIDTH]) {
      Real e[WIDTH];
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const bool largest = x[i] == m;
        count += largest;
        e[i] = choose(largest, Real(0), shift.exp(x[i]));
      }
      sum.template add_chunk<V>(tree_sum(e));
    });
    const Rest<Real> rest = team.all(Rest<Real>{Handed<Real>(sum), count}, Added{});
    sum = rest.sum.back();
    const Real e_k = shift.exp(ordinary ? m : Real(0));
    sum.add(Real(rest.count - 1) * e_k);
    const Real l = ordinary ? log1p_of(sum.value() / e_k) : nan<Real>();
    if constexpr (MODE == LOG_PROBABILITIES) {
      // The row is found anew, too: it shall not keep registers through the walk before.
      const int64 again = team.row();
      const Results<T, Real, Team, V> out(team, a.out, a.shape, At(again < a.shape.rows ? again : 0, a.shape), classes);
      row.each(read, [&](Index j, Real(&x)[WIDTH]) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) x[i] = (x[i] - m) - l;
        out.store(j, x);
      });
      out.done();
    } else if (present && team.speaks()) {
      *at.in<Real>(a.out) = ordinary ? m + l : m;
    }
  }
  team.leave();
}

}  // namespace softgrad

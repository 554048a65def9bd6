// The values of targets and probabilities, judged: the smallest flat position of what is not in order.
#include "losses.cuh"

namespace softgrad {

struct CheckArgs {
  Shape shape;
  Strided values;  // integer targets, or probabilities (their logarithms)
  int64 target_format, ignores, ignore_index;
  uint64* first;  // all ones: none.  An integer minimum does not depend on the order of its operands
  double tolerance;
  int64 logarithms;
};

template <class Team>
DEVICE void check_targets(const CheckArgs& a, Team team = Team()) {
  const int64 r = (int64)blockIdx.x * Team::SIZE + team.lane();
  if (r >= a.shape.rows) return;
  const At at(r, a.shape);
  const int64 t = load_target(a.values, at, a.target_format);
  const bool ignored = a.ignores && t == a.ignore_index;
  if (!ignored && (t < 0 || t >= a.shape.classes)) lower_to(a.first, (uint64)r);
}

// Σ p (or Σ exp p) within the tolerance of 1, and no negative p; rows with a NaN pass.
template <class T, class Real, class Team>
DEVICE void check_rows(const CheckArgs& a, Team team = Team()) {
  using Rows = Row<T, Real, Team, 0>;
  using Index = typename Rows::Index;
  constexpr int WIDTH = Rows::WIDTH;
  const int64 r = team.row();
  const bool present = r < a.shape.rows;
  const At at(present ? r : 0, a.shape);
  const int64 classes = present ? a.shape.classes : 0;
  const Span<T, Real> p(a.values, at, classes);
  Rows row(team, classes);
  Sum<double> sum;
  uint32 negative = 0;
  row.each([&](Index j, Real(&x)[WIDTH]) { p.load(j, a.logarithms ? -infinity<Real>() : Real(0), x); },
           [&](Index, Real(&x)[WIDTH]) {
#pragma unroll
             for (int i = 0; i < WIDTH; ++i) {
               const double value = a.logarithms ? exp((double)x[i]) : (double)x[i];
               negative |= value < 0.0;
               sum.add(value);
             }
           });
  sum = all_of(team, sum);
  negative = team.all(negative, Larger32{});
  const double off = sum.value() - 1.0;
  if (present && team.speaks() && !is_nan(off) && (negative || off > a.tolerance || off < -a.tolerance))
    lower_to(a.first, (uint64)r);
}

}  // namespace softgrad

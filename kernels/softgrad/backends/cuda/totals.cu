// Reduced losses, and what the mean divides by: two levels of sums in an order fixed by the number of rows alone.
//
// The rows are cut into `chunks` runs of `length`; a block sums one, and the block that finishes last sums the chunks'
// sums.  Everything is added in pairs of doubles.  The counter is 0 before and after each launch.
#include "losses.cuh"

namespace softgrad {

struct TotalArgs {
  LossArgs loss;        // for the divisor: targets, weight, ignore_index
  const double* values;  // for a total: one number per row, contiguous
  void* result;         // a total in the computing type, or the divisor {Σ weights, number} in double
  void* scratch;        // (chunks,) partial sums
  uint32* counter;
  const double* divisor;  // what a total is divided by; null: `by`
  int64 length, chunks;
  double by, when_nothing_counts;
};

struct Weighed {
  Sum<double> weight;
  int64 count;
  DEVICE Weighed operator+(const Weighed& other) const { return Weighed{weight + other.weight, count + other.count}; }
};

// The sum of f(i), 0 ≤ i < n, over all blocks: true, with the sum, in the block that finishes last.
template <class X, class Team, class Term>
DEVICE bool grid_sum(Team& team, const TotalArgs& a, int64 n, X& sum, Term term) {
  const int64 first = (int64)blockIdx.x * a.length;
  const int64 end = first + a.length < n ? first + a.length : n;
  for (int64 i = first + team.lane(); i < end; i += Team::SIZE) sum = sum + term(i);
  sum = team.all(sum, Added{});
  X* parts = (X*)a.scratch;
  uint32 is_last = 0;
  if (team.lane() == 0) {
    parts[blockIdx.x] = sum;
    publish();
    is_last = take_ticket(a.counter) == (uint32)(a.chunks - 1);
  }
  if (!team.all(is_last, Larger32{})) return false;
  publish();
  sum = X{};
  for (int64 i = team.lane(); i < a.chunks; i += Team::SIZE) sum = sum + fresh(parts + i);
  sum = team.all(sum, Added{});
  if (team.lane() == 0) *a.counter = 0u;
  return true;
}

template <class Real, class Team>
DEVICE void total(const TotalArgs& a, Team team = Team()) {
  Sum<double> sum;
  const bool last = grid_sum(team, a, a.loss.shape.rows, sum, [&](int64 i) { return Sum<double>(a.values[i], 0.0); });
  if (last && team.lane() == 0) {
    const double by = a.divisor ? a.divisor[0] : a.by;
    const bool nothing = by == 0.0 || (a.divisor && a.divisor[1] == 0.0);
    *(Real*)a.result = (Real)(nothing ? a.when_nothing_counts : sum.value() / by * SUMMED_UNIT);
  }
}

template <class Real, class Team>
DEVICE void divisor(const TotalArgs& a, Team team = Team()) {
  Weighed sum{};
  const LossArgs& loss = a.loss;
  const bool last = grid_sum(team, a, loss.shape.rows, sum, [&](int64 i) {
    const At at(i, loss.shape);
    const int64 t = load_target(loss.targets, at, loss.target_format);
    if (t < 0 || t >= loss.shape.classes || (loss.ignores && t == loss.ignore_index)) return Weighed{};
    const double w = loss.weight.data ? (double)((const Real*)loss.weight.data)[t * loss.weight.classes] : 1.0;
    return Weighed{Sum<double>(w, 0.0), 1};
  });
  if (last && team.lane() == 0) {
    double* result = (double*)a.result;
    result[0] = sum.weight.value();
    result[1] = (double)sum.count;
  }
}

}  // namespace softgrad

// Who works on a row: a team of threads, numbered by `lane`, that can agree on a value.
//
//   Short<C, R, THREADS> one lane, for R rows of C classes each, in turns
//   Lanes<W, THREADS>    W neighbouring lanes of a warp; a block serves THREADS / W rows
//   Block<THREADS>       a block
//   Cluster<N, THREADS>  N blocks of a cluster, exchanging through distributed shared memory (sm_90 on)
//   Columns<Y, X>        Y threads of a block, X neighbouring rows wide: for a strided class axis, so that a warp reads
//                        neighbouring rows
//   Segments<Team>       a team for each segment of a row, meeting between launches (segments.cuh)
//
// `all(x, join)` joins the values of a team's threads and gives every thread the same bits: in an order fixed by the
// team's shape, and, where threads join in different order, by joins that are symmetric.  Every thread of the block must take part.
#pragma once
#include "sums.cuh"

namespace softgrad {

// The widest value a team can agree on.
constexpr int SLOT = 24;

// Whether a block's rows come and go together, through shared memory (slabs.cuh).
enum class Slabs { NEVER, MAYBE, ALWAYS };

// A team that has its row to itself, in one launch: it makes every walk, from the first class to the last.
struct Whole {
  // Classes in a chunk of a row of T: 16 bytes, for most.
  template <class T>
  static constexpr int WIDTH = 16 / (int)sizeof(T);
  static constexpr int TURNS = 1;  // rows of a thread, one after the other
  static constexpr Slabs SLABS = Slabs::NEVER;
  DEVICE bool is_first() const { return true; }
  DEVICE bool is_last() const { return true; }
  // Of a row that may be one too many: then it has none.
  DEVICE int64 classes(bool present, int64 count) const { return present ? count : 0; }
  DEVICE int64 begin() const { return 0; }
  DEVICE int64 end(int64 classes) const { return classes; }
  DEVICE bool walks() { return true; }
  // A number that is read from the row between walks, by its place: in place, it may be gone once the others have agreed.
  template <class Read>
  DEVICE auto kept(Read read) {
    return read();
  }
  DEVICE void leave() {}
};

template <int W, class X, class Join>
DEVICE X join_lanes(X x, Join join) {
#pragma unroll
  for (int distance = W / 2; distance > 0; distance /= 2) x = join(x, exchange(x, distance));
  return x;
}

// FOLLOW: rows follow each other in memory, in every array.
template <int CLASSES, int TURNS_, int THREADS_, bool FOLLOW>
struct Short : Whole {
  static constexpr int SIZE = 1, THREADS = THREADS_, BLOCKS = 1, TURNS = TURNS_;
  static constexpr Slabs SLABS = FOLLOW ? Slabs::ALWAYS : Slabs::NEVER;
  template <class T>
  static constexpr int WIDTH = CLASSES;
  int turn = 0;
  // A row too many has what stands in shared memory by chance, and leaves no result.
  DEVICE int64 classes(bool present, int64 count) const { return FOLLOW || present ? count : 0; }
  DEVICE bool is_first() const { return turn == 0; }
  DEVICE bool is_last() const { return turn == TURNS - 1; }
  DEVICE int lane() const { return 0; }
  DEVICE int64 row() const { return ((int64)blockIdx.x * TURNS + turn) * THREADS + threadIdx.x; }
  DEVICE bool speaks() const { return true; }
  template <class X, class Join>
  DEVICE X all(X x, Join) {
    return x;
  }
};

template <int W_, int THREADS_>
struct Lanes : Whole {
  static constexpr int SIZE = W_, THREADS = THREADS_, BLOCKS = 1;
  static constexpr Slabs SLABS = W_ < 32 ? Slabs::MAYBE : Slabs::NEVER;
  DEVICE int lane() const { return threadIdx.x % W_; }
  DEVICE int64 row() const { return (int64)blockIdx.x * (THREADS / W_) + threadIdx.x / W_; }
  DEVICE bool speaks() const { return lane() == 0; }
  template <class X, class Join>
  DEVICE X all(X x, Join join) {
    return join_lanes<W_>(x, join);
  }
  // An exchange between lanes orders no memory, as the barriers of other teams do.
  template <class Read>
  DEVICE auto kept(Read read) {
    const auto x = read();
    if constexpr (W_ > 1) warp_barrier();
    return x;
  }
};

template <int THREADS_>
struct Block : Whole {
  static constexpr int SIZE = THREADS_, THREADS = THREADS_, BLOCKS = 1, WARPS = THREADS_ / 32, SLOTS = 2 * WARPS;
  static_assert((WARPS & (WARPS - 1)) == 0 && WARPS <= 32, "joined in a butterfly");
  int turn = 0;
  DEVICE int lane() const { return threadIdx.x; }
  DEVICE int64 row() const { return row(blockIdx.x); }
  DEVICE int64 row(int64 block) const { return block; }
  DEVICE bool speaks() const { return lane() == 0; }
  template <class X, class Join>
  DEVICE X all(X x, Join join) {
    static_assert(sizeof(X) <= SLOT, "fits a slot");
    x = join_lanes<32>(x, join);
    // Two sets of slots take turns: whoever writes one again has passed the barrier behind all reads of it.
    X* slots = (X*)(shared_memory() + turn * WARPS * SLOT);
    turn ^= 1;
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = x;
    __syncthreads();
    return join_lanes<WARPS>(slots[threadIdx.x % WARPS], join);
  }
};

#if defined(SOFTGRAD_EMULATED) || __CUDA_ARCH__ >= 900
template <int N_, int THREADS_>
struct Cluster : Whole {
  static constexpr int SIZE = N_ * THREADS_, THREADS = THREADS_, BLOCKS = N_, SLOTS = Block<THREADS_>::SLOTS + 2;
  Block<THREADS_> block;
  DEVICE int lane() const { return cluster_rank() * THREADS_ + threadIdx.x; }
  DEVICE int64 row() const { return blockIdx.x / N_; }
  DEVICE bool speaks() const { return lane() == 0; }
  template <class X, class Join>
  DEVICE X all(X x, Join join) {
    x = block.all(x, join);
    X* slot = (X*)(shared_memory() + (2 * Block<THREADS_>::WARPS + block.turn) * SLOT);
    if (threadIdx.x == 0) *slot = x;
    cluster_barrier();
    return join_lanes<N_>(peer_read(slot, threadIdx.x % N_), join);
  }
  // A block's shared memory must outlive its peers' reads.
  DEVICE void leave() { cluster_barrier(); }
};
#endif

template <int Y_, int X_>
struct Columns : Whole {
  static constexpr int SIZE = Y_, THREADS = Y_ * X_, BLOCKS = 1;
  template <class T>
  static constexpr int WIDTH = 1;
  int turn = 0;
  DEVICE int lane() const { return threadIdx.x / X_; }
  DEVICE int64 row() const { return row(blockIdx.x); }
  DEVICE int64 row(int64 block) const { return block * X_ + threadIdx.x % X_; }
  DEVICE bool speaks() const { return lane() == 0; }
  template <class X, class Join>
  DEVICE X all(X x, Join join) {
    static_assert(sizeof(X) <= SLOT, "fits a slot");
    X* slots = (X*)(shared_memory() + turn * THREADS * SLOT);
    turn ^= 1;
    slots[threadIdx.x] = x;
    __syncthreads();
    x = slots[threadIdx.x % X_];
    for (int y = 1; y < Y_; ++y) x = join(x, slots[y * X_ + threadIdx.x % X_]);
    return x;
  }
};

// --- what teams agree on ---------------------------------------------------------------------------------------------

struct Larger {
  template <class Real>
  DEVICE Real operator()(Real a, Real b) const {
    return nan_max(a, b);
  }
};

struct Larger32 {
  DEVICE uint32 operator()(uint32 a, uint32 b) const { return a > b ? a : b; }
};

struct Added {
  template <class X>
  DEVICE X operator()(const X& a, const X& b) const {
    return a + b;
  }
};

constexpr int64 NOWHERE = 0x7fffffffffffffffll;

// A sum, and the first class that is the largest.
template <class Real>
struct SumAndFirst {
  Handed<Real> sum;
  int64 first;
  DEVICE SumAndFirst operator+(const SumAndFirst& other) const {
    return SumAndFirst{sum + other.sum, first < other.first ? first : other.first};
  }
};

// The sum of a row's exponentials without those of its largest classes, and how many there are of these.
template <class Real>
struct Rest {
  Handed<Real> sum;
  int64 count;
  DEVICE Rest operator+(const Rest& other) const { return Rest{sum + other.sum, count + other.count}; }
};

// What the threads of a team have summed, summed.
template <class Team, class Real>
DEVICE Sum<Real> all_of(Team& team, const Sum<Real>& s) {
  if constexpr (Team::SIZE == 1) return s;
  return team.all(Handed<Real>(s), Added{}).back();
}

}  // namespace softgrad

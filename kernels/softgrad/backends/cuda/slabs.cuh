// Short rows, several to a warp: a block's rows together, on their way between memory and the lanes that hold them.
//
// Where rows follow each other without gaps, a block's are one run of memory, whatever C is and wherever the run begins:
// it is moved in words between global and shared memory, all of them under way at once, by neighbouring threads; the
// lanes take from there, or put there, the classes that are theirs, a chunk at a time where chunks are aligned.  Nothing is
// read or written twice, nor outside the run; which lane has which class stays.
#pragma once
#include "rows.cuh"

namespace softgrad {

// A block's rows of T; a lane has V chunks of N classes of each of its rows.
template <class T, class Team, int V, int N>
struct Slab {
  static constexpr int PER_WORD = 16 / (int)sizeof(T), CHUNK = N * (int)sizeof(T);
  static constexpr int ROWS = Team::TURNS * (Team::THREADS / Team::SIZE);
  static constexpr int EACH = (Team::TURNS * V * CHUNK + 15) / 16;  // words per thread
  // Between rows that a warp reads at once by words, every eighth is left out: they fall into different banks.
  static constexpr int BYTES = Team::THREADS * Team::TURNS * V * CHUNK / 8 * 9 + 16;
  static constexpr bool LOADABLE = Team::SIZE <= 2 && (CHUNK == 4 || CHUNK == 8 || CHUNK == 16);
  T* global;
  T* shared;  // as far behind a boundary as `global`, so that words are words in both
  int classes, count;
  bool chunks;  // whether chunks are aligned

  // Whether a kernel's rows need it; all threads of a block agree.
  static DEVICE bool holds(const Strided& array, const Shape& shape) {
    if constexpr (Team::SLABS != Slabs::MAYBE) return Team::SLABS == Slabs::ALWAYS;
    const bool words = (uint64)array.data % 16 == 0 && shape.classes % PER_WORD == 0;
    // Where four lanes and more share a row of whole words, a warp reads and writes 64 bytes of each row at once.
    return array.follows(shape) && !(words && Team::SIZE > 2);
  }

  // `place`: of the slab in shared memory, a multiple of 16 bytes.
  DEVICE Slab(const Strided& array, const Shape& shape, int place) : classes((int)shape.classes) {
    const int64 first = (int64)blockIdx.x * ROWS, left = shape.rows - first;
    count = (int)(left < ROWS ? left : ROWS) * classes;
    global = (T*)array.data + first * shape.classes;
    shared = (T*)(shared_memory() + place + (uint64)global % 16);
    chunks = LOADABLE && classes % N == 0 && (uint64)array.data % CHUNK == 0;
  }

  DEVICE void fill() const {
    move<true>();
    __syncthreads();
  }
  DEVICE void empty() const {
    __syncthreads();
    move<false>();
    __syncthreads();  // another tangent may follow
  }

  // Classes j … j + N − 1, of `end`, of this thread's row; `pad` beyond.
  template <class Real>
  DEVICE void load(const Team& team, int j, int end, Real pad, Real (&x)[N]) const {
    const int i = row(team) + j;
    if constexpr (LOADABLE)
      if (chunks) {
        if (j < end)
          Span<T, Real>::template unpacked<N>(*(const Words<CHUNK / 4>*)at(i), x);
        else
#pragma unroll
          for (int n = 0; n < N; ++n) x[n] = pad;
        return;
      }
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = j + n < end ? Real(widen(shared[i + n])) : pad;
  }
  template <class Real>
  DEVICE void store(const Team& team, int j, int end, const Real (&x)[N]) const {
    const int i = row(team) + j;
    if constexpr (LOADABLE)
      if (chunks) {
        *(Words<CHUNK / 4>*)at(i) = Span<T, Real>::template packed<N>(x);
        return;
      }
#pragma unroll
    for (int n = 0; n < N; ++n)
      if (j + n < end) shared[i + n] = narrow<T>((typename Computing<T>::Real)x[n]);
  }

 private:
  DEVICE int row(const Team& team) const {
    if constexpr (Team::TURNS > 1) return (team.turn * Team::THREADS + (int)threadIdx.x) * classes;
    return (int)threadIdx.x / Team::SIZE * classes;
  }
  DEVICE T* at(int i) const { return shared + (CHUNK == 16 && chunks ? i + i / (8 * PER_WORD) * PER_WORD : i); }

  template <bool IN>
  DEVICE void move() const {
    const int i = threadIdx.x, before = (int)(-(uint64)global % 16) / (int)sizeof(T), head = before < count ? before : count;
    const int words = (count - head) / PER_WORD, tail = head + words * PER_WORD;
    if (i < head) (IN ? shared : global)[i] = (IN ? global : shared)[i];
    if (i < count - tail) (IN ? shared : global)[tail + i] = (IN ? global : shared)[tail + i];
    // What comes is under way all at once; for what goes, nobody waits.
    constexpr int AT_ONCE = IN ? EACH : 1;
    Words4 moving[AT_ONCE];
#pragma unroll
    for (int first = 0; first < EACH; first += AT_ONCE) {
#pragma unroll
      for (int k = 0; k < AT_ONCE; ++k)
        if (const int w = i + (first + k) * Team::THREADS; w < words)
          moving[k] = *(const Words4*)(IN ? global + head + w * PER_WORD : at(head + w * PER_WORD));
#pragma unroll
      for (int k = 0; k < AT_ONCE; ++k)
        if (const int w = i + (first + k) * Team::THREADS; w < words) {
          if constexpr (IN)
            *(Words4*)at(head + w * PER_WORD) = moving[k];
          else
            store_global(global + head + w * PER_WORD, moving[k]);
        }
    }
  }
};

// A lane's V chunks of its row, STEP classes apart from `first` on.  `place`: in shared memory, where each turn's row is
// found again; rows of one turn take its beginning, one array after the other.
template <int V, int STEP, class Team, class T, class Real, int N>
DEVICE void load_row(const Team& team, const Strided& array, const Shape& shape, const Span<T, Real>& span, int place, int first,
                     Real pad, Real (&x)[V][N]) {
  using Rows = Slab<T, Team, V, N>;
  if constexpr (Team::SLABS != Slabs::NEVER)
    if (Rows::holds(array, shape)) {
      const Rows slab(array, shape, Team::TURNS > 1 ? place : 0);
      if (team.is_first()) slab.fill();
#pragma unroll
      for (int i = 0; i < V; ++i) slab.load(team, first + i * STEP, (int)span.classes, pad, x[i]);
      if (Team::TURNS == 1) __syncthreads();  // results begin at another place in a word, perhaps: they may lie over others' rows
      return;
    }
  span.template load_all<V, STEP>(first, pad, x);
}

template <class T, class Real, class Team, int V>
DEVICE void load_row(const Strided& array, const Shape& shape, const Span<T, Real>& span, Real pad, Row<T, Real, Team, V>& row) {
  using Steps = typename Row<T, Real, Team, V>::Steps;
  if constexpr (V > 0) load_row<V, Steps::STEP>(row.team, array, shape, span, 0, row.steps.first, pad, row.kept);
}

// Where a team's row of results goes.  All threads of the block make one, and say when they are done.
template <class T, class Real, class Team, int V>
struct Results {
  static constexpr int N = Team::template WIDTH<T>;
  using Rows = Slab<T, Team, V, N>;
  // Behind the row itself.
  static constexpr int PLACE = Team::TURNS > 1 ? Rows::BYTES : 0;
  const Team& team;
  Span<T, Real> span;
  const Strided& array;
  const Shape& shape;

  DEVICE Results(const Team& team, const Strided& array, const Shape& shape, const At& at, int64 classes)
      : team(team), span(array, at, classes), array(array), shape(shape) {}

  template <class Index>
  DEVICE void store(Index j, const Real (&x)[N]) const {
    if constexpr (V > 0 && Team::SLABS != Slabs::NEVER)
      if (Rows::holds(array, shape)) return Rows(array, shape, PLACE).store(team, (int)j, (int)span.classes, x);
    span.template store<Team::SIZE % 32 == 0>(j, x);
  }
  DEVICE void done() const {
    if constexpr (V > 0 && Team::SLABS != Slabs::NEVER)
      if (Rows::holds(array, shape) && team.is_last()) Rows(array, shape, PLACE).empty();
  }
};

}  // namespace softgrad

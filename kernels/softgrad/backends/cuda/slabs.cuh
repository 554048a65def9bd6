// Short rows, several to a warp: a block's rows together, on their way between memory and the lanes that hold them.
//
// Where rows follow each other without gaps, but not in whole words, a block's are one run of memory all the same: it is
// moved in words between global and shared memory, and the lanes take from there, or put there, the classes that are
// theirs.  Nothing is read or written twice, nor outside the run, however few the classes; which lane has which stays.
#pragma once
#include "rows.cuh"

namespace softgrad {

template <class T, class Team>
struct Slab {
  static constexpr int PER_WORD = 16 / (int)sizeof(T);
  T* global;
  T* shared;  // as far behind a boundary as `global`, so that words are words in both
  int classes, count;

  // Whether a kernel's rows need it; all threads of a block agree.
  static DEVICE bool holds(const Strided& array, const Shape& shape) {
    if constexpr (!Team::VECTORS || Team::SIZE >= 32) return false;
    const bool follow = shape.inner == 1 && array.classes == 1 && array.outer == shape.classes;
    return follow && ((uint64)array.data % 16 != 0 || shape.classes % PER_WORD != 0);
  }

  DEVICE Slab(const Strided& array, const Shape& shape) : classes((int)shape.classes) {
    constexpr int ROWS = Team::THREADS / Team::SIZE;
    const int64 first = (int64)blockIdx.x * ROWS, left = shape.rows - first;
    count = (int)(left < ROWS ? left : ROWS) * classes;
    global = (T*)array.data + first * shape.classes;
    shared = (T*)(shared_memory() + (uint64)global % 16);
  }

  DEVICE void fill() const {
    move(global, shared);
    __syncthreads();
  }
  DEVICE void empty() const {
    __syncthreads();
    move(shared, global);
    __syncthreads();  // another tangent may follow
  }
  // This thread's row.
  DEVICE T* row() const { return shared + (int)threadIdx.x / Team::SIZE * classes; }

 private:
  DEVICE void move(const T* from, T* to) const {
    const int i = threadIdx.x, before = (int)(-(uint64)global % 16) / (int)sizeof(T), head = before < count ? before : count;
    const int words = (count - head) / PER_WORD, tail = head + words * PER_WORD;
    if (i < head) to[i] = from[i];
#pragma unroll 4
    for (int w = i; w < words; w += Team::THREADS) ((Words4*)(to + head))[w] = ((const Words4*)(from + head))[w];
    if (i < count - tail) to[tail + i] = from[tail + i];
  }
};

// A lane's V chunks of its row, STEP classes apart from `first` on.
template <class Team, int V, int STEP, class T, class Real, int N>
DEVICE void load_row(const Strided& array, const Shape& shape, const Span<T, Real>& span, int first, Real pad, Real (&x)[V][N]) {
  if (Slab<T, Team>::holds(array, shape)) {
    const Slab<T, Team> slab(array, shape);
    slab.fill();
    const T* row = slab.row();
#pragma unroll
    for (int i = 0; i < V; ++i)
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int j = first + i * STEP + n;
        x[i][n] = j < (int)span.classes ? Real(widen(row[j])) : pad;
      }
    __syncthreads();  // results begin at another place in a word, perhaps: they may lie over others' rows
  } else {
    span.template load_all<V, STEP>(first, pad, x);
  }
}

template <class T, class Real, class Team, int V>
DEVICE void load_row(const Strided& array, const Shape& shape, const Span<T, Real>& span, Real pad, Row<T, Real, Team, V>& row) {
  if constexpr (V > 0) load_row<Team, V, Row<T, Real, Team, V>::Steps::STEP>(array, shape, span, row.steps.first, pad, row.kept);
}

// Where a team's row of results goes.  All threads of the block make one, and say when they are done.
template <class T, class Real, class Team, int V>
struct Results {
  Span<T, Real> span;
  const Strided& array;
  const Shape& shape;

  DEVICE Results(const Strided& array, const Shape& shape, const At& at, int64 classes)
      : span(array, at, classes), array(array), shape(shape) {}

  template <class Index, int N>
  DEVICE void store(Index j, const Real (&x)[N]) const {
    if (V > 0 && Slab<T, Team>::holds(array, shape)) {
      T* row = Slab<T, Team>(array, shape).row();
#pragma unroll
      for (int n = 0; n < N; ++n)
        if (j + n < span.classes) row[j + n] = narrow<T>((typename Computing<T>::Real)x[n]);
    } else {
      span.template store<Team::VECTORS && Team::SIZE % 32 == 0>(j, x);
    }
  }
  DEVICE void done() const {
    if (V > 0 && Slab<T, Team>::holds(array, shape)) Slab<T, Team>(array, shape).empty();
  }
};

}  // namespace softgrad

// A row in memory, and how a team walks over it.
//
// A row is cut into chunks of WIDTH neighbouring classes, 16 bytes of the logits (the row in a Short team, one class in a
// Columns team); chunk c belongs to lane c mod SIZE.  The map depends on C alone, wherever the row begins (chunks.cuh).
#pragma once
#include "chunks.cuh"

namespace softgrad {

// An (outer, classes, inner) array, or (outer, inner) with classes = 0; strides in elements.
struct Shape {
  int64 rows, inner, classes;
};

struct Strided {
  void* data;
  int64 outer, classes, inner;
  // Whether rows follow each other without gaps.
  DEVICE bool follows(const Shape& shape) const { return shape.inner == 1 && classes == 1 && outer == shape.classes; }
};

// Which row of an array this is.
struct At {
  int64 outer, inner;
  DEVICE At(int64 row, const Shape& shape) {
    outer = shape.inner == 1 ? row : row / shape.inner;
    inner = shape.inner == 1 ? 0 : row % shape.inner;
  }
  template <class T>
  DEVICE T* in(const Strided& array) const {
    return (T*)array.data + outer * array.outer + inner * array.inner;
  }
};

// --- a row in memory -------------------------------------------------------------------------------------------------

// One row of an array of T, read and written in chunks as numbers of type Real.
template <class T, class Real>
struct Span {
  using Narrow = typename Computing<T>::Real;
  T* data;
  int64 stride;
  int64 classes;

  DEVICE Span(const Strided& array, const At& at, int64 classes) : data(at.in<T>(array)), stride(array.classes), classes(classes) {}

  // Bytes by which the row begins behind a 16-byte boundary; −1 where its elements are no neighbours.
  DEVICE int offset() const { return stride == 1 ? (int)((uint64)data % 16) : -1; }

  DEVICE Real operator[](int64 j) const { return Real(widen(data[j * stride])); }
  DEVICE void put(int64 j, Real x) const { data[j * stride] = narrow<T>((Narrow)x); }

  // N neighbouring classes as words.
  template <int N>
  using Chunk = Words<N * (int)sizeof(T) / 4>;

  template <int N>
  static DEVICE Chunk<N> packed(const Real (&x)[N]) {
    Narrow y[N];
#pragma unroll
    for (int k = 0; k < N; ++k) y[k] = (Narrow)x[k];
    Chunk<N> words;
    pack(y, words.w, T{});
    return words;
  }
  template <int N>
  static DEVICE Chunk<N> filled(Real pad) {
    Real x[N];
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = pad;
    return packed<N>(x);
  }
  template <int N>
  static DEVICE void unpacked(const Chunk<N>& words, Real (&x)[N]) {
    Narrow y[N];
    unpack(words.w, y, T{});
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = Real(y[k]);
  }
  template <int N>
  DEVICE int count(int64 j) const {
    return classes - j < N ? (int)(classes - j) : N;
  }

  // Whether a chunk is an aligned word, and whether it is inside two of them, within the row.
  template <int N>
  DEVICE bool is_word(int64 j) const {
    return offset() == 0 && j + N <= classes;
  }
  template <int N>
  DEVICE bool is_straddling(int64 j) const {
    return offset() > 0 && j > 0 && j + 2 * N - offset() / (int)sizeof(T) <= classes;
  }

  // Whether a chunk of 4 or 8 bytes, as short rows and tangents of another format have them, is aligned, within the row.
  template <int N>
  static constexpr bool IS_SMALL = N > 1 && (N * (int)sizeof(T) == 4 || N * (int)sizeof(T) == 8);
  template <int N>
  DEVICE bool is_at_once(int64 j) const {
    return IS_SMALL<N> && stride == 1 && (uint64)data % (N * (int)sizeof(T)) == 0 && j + N <= classes;
  }

  // Classes j … j + N − 1; `pad` beyond the row's end.
  template <int N>
  DEVICE void load(int64 j, Real pad, Real (&x)[N]) const {
    if constexpr (N * (int)sizeof(T) == 16) {
      unpacked<N>(words<N>(j, pad), x);
    } else if (is_at_once<N>(j)) {
      if constexpr (IS_SMALL<N>) unpacked<N>(*(const Chunk<N>*)(data + j), x);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = j + i < classes ? (*this)[j + i] : pad;
    }
  }

  template <int N>
  DEVICE Words4 words(int64 j, Real pad) const {
    if (is_word<N>(j)) return *(const Words4*)(data + j);
    if (is_straddling<N>(j)) return straddling<sizeof(T)>(data + j, offset());
    return gather<sizeof(T)>(data + j * stride, stride, count<N>(j), filled<N>(pad));
  }

  // A lane's V chunks, STEP classes apart: all words are under way before the first is waited for.
  template <int V, int STEP, int N>
  DEVICE void load_all(int first, Real pad, Real (&x)[V][N]) const {
    const int n = (int)classes;
    if constexpr (N * (int)sizeof(T) == 16) {
      Words4 words[V];
#pragma unroll
      for (int i = 0; i < V; ++i) words[i] = filled<N>(pad);
      if (offset() == 0) {
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (is_word<N>(first + i * STEP)) words[i] = *(const Words4*)(data + first + i * STEP);
      } else if (offset() > 0) {
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (is_straddling<N>(first + i * STEP)) words[i] = straddling<sizeof(T)>(data + first + i * STEP, offset());
      }
      // The chunks at the row's ends; all, where its elements are no neighbours.
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int j = first + i * STEP;
        if (j < n && !is_word<N>(j) && !is_straddling<N>(j))
          words[i] = gather<sizeof(T)>(data + j * stride, stride, count<N>(j), words[i]);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) unpacked<N>(words[i], x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) load(first + i * STEP, pad, x[i]);
    }
  }

  // WARP: the lanes of a warp have neighbouring chunks, and all of them call this that have one.
  template <bool WARP, int N>
  DEVICE void store(int64 j, const Real (&x)[N]) const {
    if constexpr (N * (int)sizeof(T) == 16) {
      const Words4 words = packed<N>(x);
      if (is_word<N>(j))
        *(Words4*)(data + j) = words;
      else if (WARP && offset() > 0 && j + (32 - (int)threadIdx.x % 32) * N <= classes)
        store_warp<sizeof(T)>(data + j, offset(), words);
      else
        scatter<sizeof(T)>(data + j * stride, stride, count<N>(j), words);
    } else if (is_at_once<N>(j)) {
      if constexpr (IS_SMALL<N>) *(Chunk<N>*)(data + j) = packed<N>(x);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (j + i < classes) put(j + i, x[i]);
    }
  }
};

// x[at] = value where `at` is known at run time only.  As a chain of choices: a compiler that saw an indexed store would
// move x from registers to memory.
template <int N, class Real>
DEVICE void replace(Real (&x)[N], int at, Real value) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = choose(at == i, value, x[i]);
}

// x[at], likewise.
template <int N, class Real>
DEVICE Real pick(const Real (&x)[N], int at) {
  Real value = x[0];
#pragma unroll
  for (int i = 1; i < N; ++i) value = choose(at == i, x[i], value);
  return value;
}

// --- a team's walk over a row ---------------------------------------------------------------------------------------------

// A row that is kept is short.
template <bool IS_KEPT>
struct IndexOf {
  using Type = int;
};
template <>
struct IndexOf<false> {
  using Type = int64;
};

// V chunks per lane where the row fits a team's registers; V ≤ 0: any number.
template <class T, class Team, int V>
struct Walk {
  static constexpr int WIDTH = Team::template WIDTH<T>;
  static constexpr int STEP = WIDTH * Team::SIZE;
  using Index = typename IndexOf<(V > 0)>::Type;
  Index first, end;  // of this lane, of the team; classes = 0 where it has no row

  DEVICE Walk(const Team& team, int64 classes)
      : first((Index)team.begin() + (Index)team.lane() * WIDTH), end((Index)team.end(classes)) {}

  // visit(i, j): this lane's i-th chunk, classes j … j + WIDTH − 1; no chunk lies wholly beyond the row's end.
  template <class Visit>
  DEVICE void chunks(Visit visit) const {
    if constexpr (V > 0) {
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (first + i * STEP < end) visit(i, first + i * STEP);
    } else {
      int i = 0;
      for (Index j = first; j < end; j += STEP) visit(i++, j);
    }
  }
};

// A row's chunks, of N classes and 16 bytes, in shared memory behind the team's slots and so many such arrays: each where its
// own thread will find it again.
template <class T, class Team, int MOST, int N>
struct Held {
  Words4* words;
  DEVICE explicit Held(int behind)
      : words((Words4*)(shared_memory() + (Team::SLOTS * SLOT + 15) / 16 * 16) + behind * MOST * Team::THREADS + threadIdx.x) {}

  // All are under way at once, and past the registers: they have arrived after `copies_arrive`.
  template <class Steps, class Real>
  DEVICE void fill(const Steps& steps, const Span<T, Real>& span) const {
    steps.chunks([&](int i, int64 j) {
      Words4* const to = words + i * Team::THREADS;
      if (span.template is_word<N>(j))
        copy_16(to, span.data + j);
      else
        *to = span.template words<N>(j, Real(0));
    });
  }
  // Classes j … j + N − 1, the thread's i-th chunk; `pad` beyond the row's end.
  template <class Real>
  DEVICE void load(int i, int64 j, int64 end, Real pad, Real (&x)[N]) const {
    Span<T, Real>::template unpacked<N>(words[i * Team::THREADS], x);
#pragma unroll
    for (int n = 0; n < N; ++n)
      if (j + n >= end) x[n] = pad;
  }
};

// The numbers of one row as a team's lanes hold them: kept in registers (V > 0), or read again at each walk (V ≤ 0), from
// shared memory if that holds it, −V chunks per lane at most (V < 0).
template <class T, class Real, class Team, int V>
struct Row {
  using Steps = Walk<T, Team, V>;
  using Index = typename Steps::Index;
  static constexpr int WIDTH = Steps::WIDTH;
  Team& team;
  Steps steps;
  Real kept[V > 0 ? V : 1][WIDTH];

  DEVICE Row(Team& team, int64 classes) : team(team), steps(team, classes) {}

  // The walks from here on find their chunks' places anew: V of them would be V registers, beside the row itself.
  DEVICE void forget_places() {
    if constexpr (V > 0) steps.first = anew(steps.first);
  }

  // visit(j, x): each chunk in turn; what is written to x is kept where V > 0.
  template <class Read, class Visit>
  DEVICE void each(Read read, Visit visit) {
    each_numbered(read, [&](int, Index j, Real(&x)[WIDTH]) { visit(j, x); });
  }
  // visit(i, j, x), i this lane's number of the chunk.
  template <class Read, class Visit>
  DEVICE void each_numbered(Read read, Visit visit) {
    if (!team.walks()) return;
    steps.chunks([&](int i, Index j) {
      if constexpr (V > 0) {
        visit(i, j, kept[i]);
      } else if constexpr (V < 0) {
        Real x[WIDTH];
        Held<T, Team, -V, WIDTH>(0).load(i, j, steps.end, -infinity<Real>(), x);
        visit(i, j, x);
      } else {
        Real x[WIDTH];
        read(j, x);
        visit(i, j, x);
      }
    });
  }
};

}  // namespace softgrad

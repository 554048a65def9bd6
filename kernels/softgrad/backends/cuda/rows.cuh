// A row in memory, and how a team walks over it.
//
// A row is cut into chunks of WIDTH neighbouring classes, 16 bytes of the logits (one class in a Columns team); chunk c
// belongs to lane c mod SIZE.  The map depends on C alone: where a row does not start at a 16-byte boundary, the same
// chunks are loaded element by element, from lines that the first access brought into the cache.
#pragma once
#include "segments.cuh"

namespace softgrad {

// An (outer, classes, inner) array, or (outer, inner) with classes = 0; strides in elements.
struct Strided {
  void* data;
  int64 outer, classes, inner;
};

struct Shape {
  int64 rows, inner, classes;
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

// --- chunks --------------------------------------------------------------------------------------------------------------

template <int N, class Real>
DEVICE void unpack(const uint32 (&w)[N], Real (&x)[N], float) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = bits_float(w[i]);
}
template <int N>
DEVICE void unpack(const uint32 (&w)[N], float (&x)[2 * N], float16) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    x[2 * i] = widen(float16{(uint16)(w[i] & 0xffffu)});
    x[2 * i + 1] = widen(float16{(uint16)(w[i] >> 16)});
  }
}
template <int N>
DEVICE void unpack(const uint32 (&w)[N], float (&x)[2 * N], bfloat16) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    x[2 * i] = bits_float(w[i] << 16);
    x[2 * i + 1] = bits_float(w[i] & 0xffff0000u);
  }
}
template <int N>
DEVICE void unpack(const uint32 (&w)[N], double (&x)[N / 2], double) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) x[i] = bits_float(((uint64)w[2 * i + 1] << 32) | w[2 * i]);
}

template <int N>
DEVICE void pack(const float (&x)[N], uint32 (&w)[N], float) {
#pragma unroll
  for (int i = 0; i < N; ++i) w[i] = float_bits(x[i]);
}
template <int N>
DEVICE void pack(const float (&x)[2 * N], uint32 (&w)[N], float16) {
#pragma unroll
  for (int i = 0; i < N; ++i) w[i] = pack_float16(x[2 * i], x[2 * i + 1]);
}
template <int N>
DEVICE void pack(const float (&x)[2 * N], uint32 (&w)[N], bfloat16) {
#pragma unroll
  for (int i = 0; i < N; ++i) w[i] = pack_bfloat16(x[2 * i], x[2 * i + 1]);
}
template <int N>
DEVICE void pack(const double (&x)[N / 2], uint32 (&w)[N], double) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    w[2 * i] = (uint32)float_bits(x[i]);
    w[2 * i + 1] = (uint32)(float_bits(x[i]) >> 32);
  }
}

// The elements, of ITEM bytes, of a chunk that is not one aligned 16-byte word: some of them, or a stride apart, or where a
// row begins between words.  Functions that are called, not inlined: a kernel holds its row in registers, and the code that
// rows seldom need must not compete for them.
template <int ITEM>
struct Item;
template <>
struct Item<2> {
  using Bits = uint16;
};
template <>
struct Item<4> {
  using Bits = uint32;
};
template <>
struct Item<8> {
  using Bits = uint64;
};

template <int ITEM>
__device__ __noinline__ Words4 gather(const void* from, int64 stride, int count, Words4 words) {
  using Bits = typename Item<ITEM>::Bits;
#pragma unroll
  for (int i = 0; i < 16 / ITEM; ++i)
    if (i < count) {
      const Bits x = ((const Bits*)from)[i * stride];
      if constexpr (ITEM == 2)
        words.w[i / 2] = i % 2 ? (words.w[i / 2] & 0xffffu) | (uint32)x << 16 : (words.w[i / 2] & 0xffff0000u) | x;
      else if constexpr (ITEM == 4)
        words.w[i] = x;
      else
        words.w[2 * i] = (uint32)x, words.w[2 * i + 1] = (uint32)(x >> 32);
    }
  return words;
}

template <int ITEM>
__device__ __noinline__ void scatter(void* to, int64 stride, int count, Words4 words) {
  using Bits = typename Item<ITEM>::Bits;
#pragma unroll
  for (int i = 0; i < 16 / ITEM; ++i)
    if (i < count) {
      Bits x;
      if constexpr (ITEM == 2)
        x = (Bits)(i % 2 ? words.w[i / 2] >> 16 : words.w[i / 2]);
      else if constexpr (ITEM == 4)
        x = words.w[i];
      else
        x = (uint64)words.w[2 * i + 1] << 32 | words.w[2 * i];
      ((Bits*)to)[i * stride] = x;
    }
}

// One row of an array of T, read and written in chunks as numbers of type Real.
template <class T, class Real>
struct Span {
  using Narrow = typename Computing<T>::Real;
  T* data;
  int64 stride;
  int64 classes;
  bool wide;  // whole chunks of 16 bytes are aligned words

  DEVICE Span(const Strided& array, const At& at, int64 classes) : data(at.in<T>(array)), stride(array.classes), classes(classes) {
    wide = stride == 1 && (uint64)data % 16 == 0;
  }

  DEVICE Real operator[](int64 j) const { return Real(widen(data[j * stride])); }
  DEVICE void put(int64 j, Real x) const { data[j * stride] = narrow<T>((Narrow)x); }

  template <int N>
  static DEVICE Words4 filled(Real pad) {
    Narrow y[N];
#pragma unroll
    for (int k = 0; k < N; ++k) y[k] = (Narrow)pad;
    Words4 words;
    pack(y, words.w, T{});
    return words;
  }
  template <int N>
  static DEVICE void unpacked(const Words4& words, Real (&x)[N]) {
    Narrow y[N];
    unpack(words.w, y, T{});
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = Real(y[k]);
  }
  template <int N>
  DEVICE int count(int64 j) const {
    return classes - j < N ? (int)(classes - j) : N;
  }

  // Classes j … j + N − 1; `pad` beyond the row's end.
  template <int N>
  DEVICE void load(int64 j, Real pad, Real (&x)[N]) const {
    if constexpr (N * (int)sizeof(T) == 16) {
      const bool whole = wide && j + N <= classes;
      unpacked<N>(whole ? *(const Words4*)(data + j) : gather<sizeof(T)>(data + j * stride, stride, count<N>(j), filled<N>(pad)), x);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = j + i < classes ? (*this)[j + i] : pad;
    }
  }

  // A lane's V chunks, STEP classes apart: where words are wide, all are under way before the first is waited for.
  template <int V, int STEP, int N>
  DEVICE void load_all(int first, Real pad, Real (&x)[V][N]) const {
    const int n = (int)classes;
    if constexpr (N * (int)sizeof(T) == 16) {
      Words4 words[V];
#pragma unroll
      for (int i = 0; i < V; ++i) words[i] = filled<N>(pad);
      if (wide) {
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (first + i * STEP + N <= n) words[i] = *(const Words4*)(data + first + i * STEP);
      }
      // Every chunk of a row whose words are not aligned; else the one that the row's end cuts.
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int j = first + i * STEP;
        if (j < n && !(wide && j + N <= n)) words[i] = gather<sizeof(T)>(data + j * stride, stride, count<N>(j), words[i]);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) unpacked<N>(words[i], x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) load(first + i * STEP, pad, x[i]);
    }
  }

  template <int N>
  DEVICE void store(int64 j, const Real (&x)[N]) const {
    if constexpr (N * (int)sizeof(T) == 16) {
      Narrow y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = Narrow(x[i]);
      Words4 words;
      pack(y, words.w, T{});
      if (wide && j + N <= classes)
        *(Words4*)(data + j) = words;
      else
        scatter<sizeof(T)>(data + j * stride, stride, count<N>(j), words);
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

// --- a team's walk over a row ---------------------------------------------------------------------------------------------

// A row that is kept is short.
template <int V>
struct IndexOf {
  using Type = int;
};
template <>
struct IndexOf<0> {
  using Type = int64;
};

// V chunks per lane where the row fits a team's registers; V = 0: any number.
template <class T, class Team, int V>
struct Walk {
  static constexpr int WIDTH = Team::VECTORS ? 16 / (int)sizeof(T) : 1;
  static constexpr int STEP = WIDTH * Team::SIZE;
  using Index = typename IndexOf<V>::Type;
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
      for (Index j = first; j < end; j += STEP) visit(0, j);
    }
  }
};

// The numbers of one row as a team's lanes hold them: kept in registers (V > 0), or read again at each walk (V = 0).
template <class T, class Real, class Team, int V>
struct Row {
  using Steps = Walk<T, Team, V>;
  using Index = typename Steps::Index;
  static constexpr int WIDTH = Steps::WIDTH;
  Team& team;
  Steps steps;
  Real kept[V > 0 ? V : 1][WIDTH];

  DEVICE Row(Team& team, int64 classes) : team(team), steps(team, classes) {}

  DEVICE void load(const Span<T, Real>& span, Real pad) {
    if constexpr (V > 0) span.template load_all<V, Steps::STEP>(steps.first, pad, kept);
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
      } else {
        Real x[WIDTH];
        read(j, x);
        visit(i, j, x);
      }
    });
  }
};

}  // namespace softgrad

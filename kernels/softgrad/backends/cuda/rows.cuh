// A row in memory, and how a team walks over it.
//
// A row is cut into chunks of WIDTH neighbouring classes, 16 bytes of the logits (one class in a Columns team); chunk c
// belongs to lane c mod SIZE.  The map depends on C alone: where a row does not start at a 16-byte boundary, the same
// chunks are loaded by narrower accesses.
#pragma once
#include "teams.cuh"

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

// The widest access that every chunk of a row allows: 16, 8 or 4 bytes, or one element.
template <class T>
DEVICE int access_width(const T* row, int64 stride) {
  const uint64 address = (uint64)row;
  if (stride != 1) return 0;
  return address % 16 == 0 ? 16 : address % 8 == 0 ? 8 : address % 4 == 0 ? 4 : 2;
}

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

// A whole chunk at an address that allows accesses of `width` bytes.
template <int BYTES>
DEVICE void load_words(const void* from, int width, uint32 (&w)[BYTES / 4]) {
  if (BYTES % 16 == 0 && width == 16) {
#pragma unroll
    for (int i = 0; i < BYTES / 16; ++i) {
      const Words4 part = ((const Words4*)from)[i];
#pragma unroll
      for (int k = 0; k < 4; ++k) w[4 * i + k] = part.w[k];
    }
  } else if (width >= 8) {
#pragma unroll
    for (int i = 0; i < BYTES / 8; ++i) {
      const Words2 part = ((const Words2*)from)[i];
      w[2 * i] = part.w[0];
      w[2 * i + 1] = part.w[1];
    }
  } else if (width >= 4) {
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) w[i] = ((const uint32*)from)[i];
  } else {
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) w[i] = ((const uint16*)from)[2 * i] | (uint32)((const uint16*)from)[2 * i + 1] << 16;
  }
}

template <int BYTES>
DEVICE void store_words(void* to, int width, const uint32 (&w)[BYTES / 4]) {
  if (BYTES % 16 == 0 && width == 16) {
#pragma unroll
    for (int i = 0; i < BYTES / 16; ++i) ((Words4*)to)[i] = Words4{{w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]}};
  } else if (width >= 8) {
#pragma unroll
    for (int i = 0; i < BYTES / 8; ++i) ((Words2*)to)[i] = Words2{{w[2 * i], w[2 * i + 1]}};
  } else if (width >= 4) {
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) ((uint32*)to)[i] = w[i];
  } else {
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) {
      ((uint16*)to)[2 * i] = (uint16)w[i];
      ((uint16*)to)[2 * i + 1] = (uint16)(w[i] >> 16);
    }
  }
}

// One row of an array of T, read and written in chunks as numbers of type Real.
template <class T, class Real>
struct Span {
  T* data;
  int64 stride;
  int64 classes;
  int width;

  DEVICE Span(const Strided& array, const At& at, int64 classes) : data(at.in<T>(array)), stride(array.classes), classes(classes) {
    width = access_width(data, stride);
  }

  DEVICE Real operator[](int64 j) const { return Real(widen(data[j * stride])); }

  DEVICE void put(int64 j, Real x) const { data[j * stride] = narrow<T>((typename Computing<T>::Real)x); }

  // Classes j … j + N − 1; `pad` beyond the row's end.
  template <int N>
  DEVICE void load(int64 j, Real pad, Real (&x)[N]) const {
    constexpr int BYTES = N * (int)sizeof(T);
    if constexpr (BYTES % 8 == 0) {
      if (width != 0 && j + N <= classes) {
        uint32 w[BYTES / 4];
        typename Computing<T>::Real y[N];
        load_words<BYTES>(data + j, width, w);
        unpack(w, y, T{});
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = Real(y[i]);
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = j + i < classes ? (*this)[j + i] : pad;
  }

  template <int N>
  DEVICE void store(int64 j, const Real (&x)[N]) const {
    using Narrow = typename Computing<T>::Real;
    constexpr int BYTES = N * (int)sizeof(T);
    if constexpr (BYTES % 8 == 0) {
      if (width != 0 && j + N <= classes) {
        uint32 w[BYTES / 4];
        Narrow y[N];
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] = Narrow(x[i]);
        pack(y, w, T{});
        store_words<BYTES>(data + j, width, w);
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (j + i < classes) data[(j + i) * stride] = narrow<T>(Narrow(x[i]));
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

// V chunks per lane where the row fits a team's registers; V = 0: any number.
template <class T, class Team, int V>
struct Walk {
  static constexpr int WIDTH = Team::VECTORS ? 16 / (int)sizeof(T) : 1;
  static constexpr int STEP = WIDTH * Team::SIZE;
  int64 classes;  // 0 where the team has no row
  int64 first;    // of this lane

  DEVICE Walk(const Team& team, int64 classes) : classes(classes), first((int64)team.lane() * WIDTH) {}

  // visit(i, j): this lane's i-th chunk, classes j … j + WIDTH − 1; no chunk lies wholly beyond the row's end.
  template <class Visit>
  DEVICE void chunks(Visit visit) const {
    if constexpr (V > 0) {
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (first + i * STEP < classes) visit(i, first + i * STEP);
    } else {
      for (int64 j = first; j < classes; j += STEP) visit(0, j);
    }
  }
};

// The numbers of one row as a team's lanes hold them: kept in registers (V > 0), or read again at each walk (V = 0).
template <class T, class Real, class Team, int V>
struct Row {
  using Steps = Walk<T, Team, V>;
  static constexpr int WIDTH = Steps::WIDTH;
  Steps steps;
  Real kept[V > 0 ? V : 1][WIDTH];

  DEVICE explicit Row(const Steps& steps) : steps(steps) {}

  // `read(j, x)` fills x with classes j … j + WIDTH − 1.
  template <class Read>
  DEVICE void load(Read read) {
    if constexpr (V > 0) steps.chunks([&](int i, int64 j) { read(j, kept[i]); });
  }

  // visit(j, x): each chunk in turn; what is written to x is kept where V > 0.
  template <class Read, class Visit>
  DEVICE void each(Read read, Visit visit) {
    steps.chunks([&](int i, int64 j) {
      if constexpr (V > 0) {
        visit(j, kept[i]);
      } else {
        Real x[WIDTH];
        read(j, x);
        visit(j, x);
      }
    });
  }
};

}  // namespace softgrad

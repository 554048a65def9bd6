// Names for the types that the kernels are made of.  No header is included anywhere: NVRTC alone compiles them.
#pragma once

#define DEVICE __device__ __forceinline__
// Blocks per multiprocessor that registers leave room for.  Code for sm_120 needs more of them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define SOFTGRAD_RESIDENT(blocks) ((blocks) > 1 ? (blocks) / 2 : 1)
#else
#define SOFTGRAD_RESIDENT(blocks) (blocks)
#endif
// After a lambda's parameters, where it is called more than once: a call would send the caller's registers to memory.
#define INLINED __attribute__((always_inline))

namespace softgrad {

using int64 = long long;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;

// 16-bit formats, by their bits: arithmetic is done in float.
struct float16 {
  uint16 bits;
};
struct bfloat16 {
  uint16 bits;
};

// Words that are moved at once.
template <int N>
struct alignas(4 * N) Words {
  uint32 w[N];
};
using Words4 = Words<4>;

// What T is computed in.
template <class T>
struct Computing {
  using Real = float;
};
template <>
struct Computing<double> {
  using Real = double;
};

// What numbers of type T are read as where Real is computed with: none loses digits.
template <class T, class Real>
struct Wider {
  using Type = Real;
};
template <>
struct Wider<double, float> {
  using Type = double;
};

}  // namespace softgrad

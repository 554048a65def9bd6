// What the kernels ask of the machine, each under a name of its own: bits of numbers, conversions, NaN-keeping maxima,
// exchange between lanes, shared memory, blocks of a cluster.  To run the kernels elsewhere, replace this one file.
#pragma once
#include "types.cuh"

namespace softgrad {

DEVICE uint32 float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(uint32 x) { return __uint_as_float(x); }
DEVICE uint64 float_bits(double x) { return (uint64)__double_as_longlong(x); }
DEVICE double bits_float(uint64 x) { return __longlong_as_double((int64)x); }

DEVICE float widen(float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
DEVICE float16 to_float16(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
DEVICE bfloat16 to_bfloat16(float x) {
#if __CUDA_ARCH__ >= 800
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32 bits = float_bits(x);
  return bfloat16{(uint16)(x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#endif
}
// Two values to one word, the first in its lower half.
DEVICE uint32 pack_float16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return (uint32)to_float16(high).bits << 16 | to_float16(low).bits;
#endif
}
DEVICE uint32 pack_bfloat16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return (uint32)to_bfloat16(high).bits << 16 | to_bfloat16(low).bits;
#endif
}

// `which ? a : b`, as one instruction that no optimiser turns into anything else.
DEVICE float choose(bool which, float a, float b) {
  float y;
  asm("{.reg .pred p; setp.ne.u32 p, %3, 0; selp.f32 %0, %1, %2, p;}" : "=f"(y) : "f"(a), "f"(b), "r"((uint32)which));
  return y;
}
DEVICE double choose(bool which, double a, double b) {
  double y;
  asm("{.reg .pred p; setp.ne.u32 p, %3, 0; selp.f64 %0, %1, %2, p;}" : "=d"(y) : "d"(a), "d"(b), "r"((uint32)which));
  return y;
}

// x, though no optimiser knows: what follows from it is found here, and not kept in registers since it last was.
DEVICE int anew(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// 1 / x to the last digit, for x and 1 / x far inside the range: division by the same steps first asks whether they are.
DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return fmaf(y, fmaf(-x, y, 1.0f), y);
}
DEVICE double reciprocal(double x) { return 1.0 / x; }

// x · large, where x may be subnormal: -ftz would take it for 0.
DEVICE float product_of_subnormal(float x, float large) {
  float y;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(large));
  return y;
}
DEVICE double product_of_subnormal(double x, double large) { return x * large; }

// fmaxf drops a NaN; a row must not.
DEVICE float nan_max(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return (a >= b || a != a) ? a : b;
#endif
}
DEVICE double nan_max(double a, double b) { return (a >= b || a != a) ? a : b; }

// X of the lane whose number differs from this one's in the bits of `distance`; every lane of the warp takes part.
template <class X>
DEVICE X exchange(X x, int distance) {
  static_assert(sizeof(X) % 4 == 0, "exchanged in words");
  uint32 w[sizeof(X) / 4];
  memcpy(w, &x, sizeof x);
#pragma unroll
  for (int i = 0; i < (int)sizeof(X) / 4; ++i) w[i] = __shfl_xor_sync(0xffffffffu, w[i], distance);
  memcpy(&x, w, sizeof x);
  return x;
}

// The words of the next lane (lane 31 gets its own); every lane of the warp takes part.
DEVICE Words4 of_next_lane(Words4 x) {
#pragma unroll
  for (int i = 0; i < 4; ++i) x.w[i] = __shfl_down_sync(0xffffffffu, x.w[i], 1);
  return x;
}
// The lower half of (high, low) shifted right.
DEVICE uint32 funnel_right(uint32 low, uint32 high, uint32 bits) { return __funnelshift_r(low, high, bits); }
// Four words to an aligned address in global memory, at once: a compiler that takes the struct apart does not always put it
// together again.
DEVICE void store_global(void* to, const Words4& x) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :: "l"(__cvta_generic_to_global(to)), "r"(x.w[0]), "r"(x.w[1]), "r"(x.w[2]), "r"(x.w[3]) : "memory");
}
// Four words from global to shared memory, both aligned: under way, past the registers, until `copies_arrive`.
DEVICE void copy_16(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :: "r"((uint32)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from)) : "memory");
#else
  *(Words4*)to = *(const Words4*)from;
#endif
}
// Of this thread.
DEVICE void copies_arrive() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
// Two words from an aligned address.  Others may be writing those of their bytes that are not used.
DEVICE void load_two(const void* from, Words4& a, Words4& b) {
  a = ((const Words4*)from)[0];
  b = ((const Words4*)from)[1];
}

// Orders what a warp's lanes have read and written.
DEVICE void warp_barrier() { __syncwarp(); }

// Dynamic shared memory.
DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char softgrad_shared[];
  return softgrad_shared;
}

#if __CUDA_ARCH__ >= 900
DEVICE int cluster_rank() {
  uint32 r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return (int)r;
}
DEVICE void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// X at `p`, an address in this block's shared memory, as block `rank` of the cluster holds it.
template <class X>
DEVICE X peer_read(const X* p, int rank) {
  static_assert(sizeof(X) % 4 == 0, "read in words");
  uint32 mine = (uint32)__cvta_generic_to_shared(p), theirs;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(mine), "r"(rank));
  uint32 w[sizeof(X) / 4];
#pragma unroll
  for (int i = 0; i < (int)sizeof(X) / 4; ++i)
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(w[i]) : "r"(theirs + 4 * i) : "memory");
  X x;
  memcpy(&x, w, sizeof x);
  return x;
}
#endif

DEVICE uint32 take_ticket(uint32* counter) { return atomicAdd(counter, 1u); }
DEVICE void publish() { __threadfence(); }
DEVICE void lower_to(uint64* number, uint64 x) { atomicMin(number, x); }
// X as other blocks published it, past this multiprocessor's own cache.
template <class X>
DEVICE X fresh(const X* p) {
  static_assert(sizeof(X) % 8 == 0, "read in words");
  uint64 w[sizeof(X) / 8];
#pragma unroll
  for (int i = 0; i < (int)sizeof(X) / 8; ++i) w[i] = __ldcg((const uint64*)p + i);
  X x;
  memcpy(&x, w, sizeof x);
  return x;
}

}  // namespace softgrad

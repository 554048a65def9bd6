// Chunks of 16 bytes: as numbers, and in memory at any address.
//
// Where a row begins between two 16-byte boundaries, so do its chunks.  Each is then read as the two aligned words that it
// straddles, as far as both lie within the row, and a warp that holds neighbouring chunks writes the words between them;
// what is left at the row's ends goes element by element.  Which lane has which class never changes.
#pragma once
#include "segments.cuh"

namespace softgrad {

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

// The elements, of ITEM bytes, of a chunk that is not 16 bytes within its row: some of them, or a stride apart.  Functions
// that are called, not inlined: a kernel holds its row in registers, and the code that rows seldom need must not compete
// for them.
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
DEVICE void put_items(void* to, int64 stride, int count, Words4 words) {
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
template <int ITEM>
__device__ __noinline__ void scatter(void* to, int64 stride, int count, Words4 words) {
  put_items<ITEM>(to, stride, count, words);
}

// 16 bytes of a and b, which follow each other, from byte `from` on, 0 < from < 16, a multiple of ITEM.
template <int ITEM>
DEVICE Words4 between(const Words4& a, const Words4& b, int from) {
  // By selections, for a register has no address: by two words, by one, and by half a word.
  uint32 w[6];
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    const uint32 stay = i < 4 ? a.w[i] : b.w[i - 4], moved = i < 2 ? a.w[i + 2] : b.w[i - 2];
    w[i] = from & 8 ? moved : stay;
  }
  if constexpr (ITEM < 8)
#pragma unroll
    for (int i = 0; i < 5; ++i) w[i] = from & 4 ? w[i + 1] : w[i];
  if constexpr (ITEM < 4)
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = funnel_right(w[i], w[i + 1], from & 2 ? 16 : 0);
  return Words4{{w[0], w[1], w[2], w[3]}};
}

// The 16 bytes at `at`, which lies `offset` bytes behind a boundary.
template <int ITEM>
DEVICE Words4 straddling(const void* at, int offset) {
  Words4 a, b;
  load_two((const char*)at - offset, a, b);
  return between<ITEM>(a, b, offset);
}

// A warp's 32 chunks, which follow each other from an address `offset` bytes behind a boundary; `to` is this lane's.
template <int ITEM>
DEVICE void store_warp(void* to, int offset, Words4 words) {
  const int lane = threadIdx.x % 32, head = 16 - offset;
  const Words4 word = between<ITEM>(words, of_next_lane(words), head);
  // A lane's word has the head of the next one's chunk: in place, that has been read by now, and it is written.
  warp_barrier();
  if (lane == 0) put_items<ITEM>(to, 1, head / ITEM, words);
  if (lane < 31)
    *(Words4*)((char*)to + head) = word;
  else
    put_items<ITEM>((char*)to + head, 1, offset / ITEM, word);
}

}  // namespace softgrad

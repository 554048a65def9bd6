// The kernels' file of this name, for the emulated device.
#pragma once
#include "device.cuh"
#include "types.cuh"

namespace softgrad {

DEVICE uint32 float_bits(float x) { return emulator::bits_of<uint32>(x); }
DEVICE float bits_float(uint32 x) { return emulator::bits_of<float>(x); }
DEVICE uint64 float_bits(double x) { return emulator::bits_of<uint64>(x); }
DEVICE double bits_float(uint64 x) { return emulator::bits_of<double>(x); }

DEVICE float widen(float16 x) {
  const uint32 sign = (uint32)(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x400u) return bits_float(sign | float_bits((float)magnitude * 0x1p-24f));
  return bits_float(sign | ((magnitude << 13) + (112u << 23)));
}
// Round to nearest, ties to even, on the bits.
DEVICE float16 to_float16(float x) {
  const uint32 bits = float_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return float16{(uint16)(sign | 0x7fffu)};
  if (magnitude >= 0x477ff000u) return float16{(uint16)(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Subnormal: a float whose unit in the last place is 2^−24.
    const float shifted = bits_float(magnitude) + 0.5f;
    return float16{(uint16)(sign | (float_bits(shifted) - 0x3f000000u))};
  }
  const uint32 rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23);
  return float16{(uint16)(sign | rounded >> 13)};
}
DEVICE bfloat16 to_bfloat16(float x) {
  const uint32 bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bfloat16{0x7fff};
  return bfloat16{(uint16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
DEVICE uint32 pack_float16(float low, float high) { return to_float16(low).bits | (uint32)to_float16(high).bits << 16; }
DEVICE uint32 pack_bfloat16(float low, float high) {
  return to_bfloat16(low).bits | (uint32)to_bfloat16(high).bits << 16;
}

DEVICE float choose(bool which, float a, float b) { return which ? a : b; }
DEVICE double choose(bool which, double a, double b) { return which ? a : b; }
DEVICE int anew(int x) { return x; }
DEVICE float reciprocal(float x) { return 1.0f / x; }
DEVICE double reciprocal(double x) { return 1.0 / x; }
// By its bits: flushing is the processor's mode here.
DEVICE float product_of_subnormal(float x, float large) {
  const uint32 sign = float_bits(x) & 0x80000000u, size = float_bits(x) ^ sign;
  if (size >= 0x00800000u) return x * large;
  return bits_float(float_bits((float)size) | sign) * (0x1p-60f * large) * 0x1p-89f;
}
DEVICE double product_of_subnormal(double x, double large) { return x * large; }
DEVICE float nan_max(float a, float b) { return (a >= b || a != a) ? a : b; }
DEVICE double nan_max(double a, double b) { return (a >= b || a != a) ? a : b; }

template <class X>
DEVICE X exchange(X x, int distance) {
  static_assert(sizeof(X) <= emulator::LARGEST_EXCHANGE, "fits a slot");
  emulator::Unwatched unwatched;
  emulator::Fiber& fiber = *emulator::machine.running;
  emulator::Warp& warp = fiber.block->warps[fiber.thread / 32];
  const int lane = fiber.thread % 32, turn = fiber.turn;
  fiber.turn ^= 1;  // a fast lane must not overwrite what a slow one has yet to read
  std::memcpy(warp.slot[turn][lane], &x, sizeof x);
  emulator::meet(warp.meeting, emulator::Waits::WARP, false);
  std::memcpy(&x, warp.slot[turn][lane ^ distance], sizeof x);
  return x;
}

DEVICE Words4 of_next_lane(Words4 x) {
  static_assert(sizeof(Words4) <= emulator::LARGEST_EXCHANGE, "fits a slot");
  emulator::Unwatched unwatched;
  emulator::Fiber& fiber = *emulator::machine.running;
  emulator::Warp& warp = fiber.block->warps[fiber.thread / 32];
  const int lane = fiber.thread % 32, turn = fiber.turn;
  fiber.turn ^= 1;
  std::memcpy(warp.slot[turn][lane], &x, sizeof x);
  emulator::meet(warp.meeting, emulator::Waits::WARP, false);
  std::memcpy(&x, warp.slot[turn][lane < 31 ? lane + 1 : 31], sizeof x);
  return x;
}
DEVICE uint32 funnel_right(uint32 low, uint32 high, uint32 bits) { return (uint32)(((uint64)high << 32 | low) >> bits); }
DEVICE void store_global(void* to, const Words4& x) { *(Words4*)to = x; }
DEVICE void copy_16(void* to, const void* from) { *(Words4*)to = *(const Words4*)from; }
DEVICE void copies_arrive() {}
DEVICE void load_two(const void* from, Words4& a, Words4& b) {
  emulator::Unwatched unwatched;  // of the bytes that are not used
  a = ((const Words4*)from)[0];
  b = ((const Words4*)from)[1];
}
DEVICE void warp_barrier() {
  emulator::meet(emulator::machine.running->block->warps[emulator::machine.running->thread / 32].meeting, emulator::Waits::WARP, true);
}
DEVICE unsigned char* shared_memory() { return (unsigned char*)emulator::machine.running->block->shared.get(); }
DEVICE int cluster_rank() { return (int)emulator::machine.running->block->rank; }
DEVICE void cluster_barrier() {
  emulator::meet(emulator::machine.cluster_meeting, emulator::Waits::CLUSTER, true);
}
template <class X>
DEVICE X peer_read(const X* p, int rank) {
  const auto offset = (const char*)p - emulator::machine.running->block->shared.get();
  X x;
  std::memcpy(&x, (*emulator::machine.cluster)[rank].shared.get() + offset, sizeof x);
  return x;
}

// Behind its fence an atomic orders what blocks have written and read.
DEVICE uint32 take_ticket(uint32* counter) {
  emulator::Unwatched unwatched;
  emulator::release(counter);
  emulator::acquire(counter);
  return (*counter)++;
}
DEVICE void publish() {}
DEVICE void lower_to(uint64* number, uint64 x) {
  emulator::Unwatched unwatched;
  *number = x < *number ? x : *number;
}
template <class X>
DEVICE X fresh(const X* p) {
  return *p;
}

}  // namespace softgrad

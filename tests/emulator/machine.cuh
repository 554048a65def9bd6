// A CUDA device of one multiprocessor, played by the CPU: enough of it to run softgrad's kernels from their own sources.
//
// Each CUDA thread is a fiber on one and the same OS thread, and runs until it must wait for others (a barrier, an
// exchange between lanes).  So every run is deterministic, and the order in which fibers take turns is a parameter:
// a missing barrier shows as a result that depends on it.  What else is found out:
//
//   * shared memory is allocated at its exact size and filled with NaN before each block: reads of what nobody wrote
//     poison the result, overruns are found by AddressSanitizer;
//   * a barrier that some threads never reach, or lanes that exchange with lanes elsewhere, abort with a report;
//   * with ThreadSanitizer the fibers are threads to it, and barriers are what orders them: a race check, between the
//     blocks of a launch too.
//
// Kernels that compute in float run with subnormal numbers flushed to 0, as under -ftz=true (on x86-64, where the machine
// can be told so).  Not modelled: performance, and blocks that run at the same time (those of a cluster do).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define SOFTGRAD_EMULATED 1
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)

#if defined(__SANITIZE_ADDRESS__)
#define EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATOR_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define EMULATOR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define EMULATOR_TSAN 1
#endif
#endif

#ifdef EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATOR_TSAN
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace emulator {

// --- fibers --------------------------------------------------------------------------------------------------------------

constexpr size_t STACK_BYTES = 128 << 10;

#if defined(__x86_64__) && !defined(_WIN32) && !defined(EMULATOR_TSAN)
// swapcontext makes a system call per switch, and a launch switches millions of times.
#define EMULATOR_FAST_SWITCH 1
struct Context {
  void* stack_pointer;
};
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.type emulator_switch,@function
.globl emulator_switch
.hidden emulator_switch
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
inline void prepare(Context& context, char* stack, void (*entry)()) {
  // As after a call: the stack is 16-byte aligned but for the return address.
  void** top = (void**)(((uintptr_t)stack + STACK_BYTES) & ~(uintptr_t)15);
  *--top = nullptr;
  *--top = (void*)entry;
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}
inline void jump(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
#else
}  // namespace emulator
#include <ucontext.h>
namespace emulator {
using Context = ucontext_t;
inline void prepare(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK_BYTES;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
inline void jump(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

struct Index {
  unsigned x, y, z;
};

enum class Waits { NO, WARP, BLOCK, CLUSTER, DONE };

// A meeting of `expected` fibers: the last to arrive opens it.
struct Meeting {
  int expected = 0, arrived = 0;
  uint64_t opened = 0;
};

constexpr int LARGEST_EXCHANGE = 32;

struct Warp {
  Meeting meeting;
  alignas(8) char slot[2][32][LARGEST_EXCHANGE];
};

struct BlockState {
  unsigned index, rank;
  std::vector<Warp> warps;
  Meeting meeting;
  std::unique_ptr<char, void (*)(void*)> shared{nullptr, std::free};
};

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  BlockState* block = nullptr;
  int thread = 0;
  int turn = 0;  // which set of exchange slots comes next
  Waits waits = Waits::NO;
  Meeting* meeting = nullptr;
  uint64_t seen = 0;
  void* asan = nullptr;
  void* tsan = nullptr;
};

struct Machine {
  Fiber* running = nullptr;
  Context scheduler;
  void* scheduler_asan = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  void* scheduler_tsan = nullptr;
  std::vector<BlockState>* cluster = nullptr;
  Meeting cluster_meeting;
  std::function<void()> body;
  char start, end;  // addresses that stand for the launch's two edges
};
inline thread_local Machine machine;

// ThreadSanitizer is to see the kernels' memory accesses, not the emulator's.
struct Unwatched {
#ifdef EMULATOR_TSAN
  Unwatched() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd("", 0);
    AnnotateIgnoreReadsEnd("", 0);
  }
#else
  ~Unwatched() {}
#endif
};
inline void release([[maybe_unused]] void* address) {
#ifdef EMULATOR_TSAN
  __tsan_release(address);
#endif
}
inline void acquire([[maybe_unused]] void* address) {
#ifdef EMULATOR_TSAN
  __tsan_acquire(address);
#endif
}

inline void suspend() {
  Fiber& fiber = *machine.running;
#ifdef EMULATOR_ASAN
  __sanitizer_start_switch_fiber(fiber.waits == Waits::DONE ? nullptr : &fiber.asan, machine.scheduler_stack,
                                 machine.scheduler_stack_bytes);
#endif
#ifdef EMULATOR_TSAN
  __tsan_switch_to_fiber(machine.scheduler_tsan, 1);
#endif
  jump(fiber.context, machine.scheduler);
#ifdef EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(machine.running->asan, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
#endif
}

inline void resume(Fiber& fiber) {
  machine.running = &fiber;
#ifdef EMULATOR_ASAN
  __sanitizer_start_switch_fiber(&machine.scheduler_asan, fiber.stack.get(), STACK_BYTES);
#endif
#ifdef EMULATOR_TSAN
  __tsan_switch_to_fiber(fiber.tsan, 1);
#endif
  jump(machine.scheduler, fiber.context);
#ifdef EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(machine.scheduler_asan, nullptr, nullptr);
#endif
}

inline void run_thread() {
#ifdef EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
#endif
  acquire(&machine.start);
  machine.body();
  release(&machine.end);
  {
    Unwatched unwatched;
    machine.running->waits = Waits::DONE;
  }
  suspend();
  std::abort();
}

inline void meet(Meeting& meeting, Waits kind, bool orders_memory) {
  Unwatched unwatched;
  Fiber& fiber = *machine.running;
  if (orders_memory) release(&meeting);
  if (++meeting.arrived == meeting.expected) {
    meeting.arrived = 0;
    ++meeting.opened;
  } else {
    fiber.waits = kind;
    fiber.meeting = &meeting;
    fiber.seen = meeting.opened;
    suspend();
    fiber.waits = Waits::NO;
  }
  if (orders_memory) acquire(&meeting);
}

inline bool is_ready(const Fiber& fiber) {
  return fiber.waits == Waits::NO || (fiber.waits != Waits::DONE && fiber.meeting->opened != fiber.seen);
}

[[noreturn]] inline void report(const std::vector<std::unique_ptr<Fiber>>& fibers, unsigned block, const char* what) {
  int count[5] = {};
  for (const auto& fiber : fibers) ++count[(int)fiber->waits];
  std::fprintf(stderr,
               "emulator: %s, block %u: %d threads wait for lanes of their warp, %d at __syncthreads, %d at a cluster "
               "barrier, %d have left\n",
               what, block, count[1], count[2], count[3], count[4]);
  std::abort();
}

// While it lives, subnormal results and operands are 0.
struct Flushing {
#if defined(__x86_64__)
  unsigned before;
  explicit Flushing(bool flushes) : before(_mm_getcsr()) {
    if (flushes) _mm_setcsr(before | 0x8040);
  }
  ~Flushing() { _mm_setcsr(before); }
#else
  explicit Flushing(bool) {}
#endif
};

// `order` 0: threads in ascending order, 1: descending, else shuffled anew at each round with this seed.
inline void launch(unsigned blocks, unsigned threads, unsigned cluster_size, size_t shared_bytes, int order,
                   std::function<void()> body) {
  release(&machine.start);
  Unwatched unwatched;
  machine.body = std::move(body);
#ifdef EMULATOR_TSAN
  machine.scheduler_tsan = __tsan_get_current_fiber();
#endif
  std::mt19937 random(order);
  std::vector<std::unique_ptr<Fiber>> fibers((size_t)threads * cluster_size);
  for (auto& fiber : fibers) fiber = std::make_unique<Fiber>();
  std::vector<size_t> turns(fibers.size());
  for (size_t i = 0; i < turns.size(); ++i) turns[i] = order == 1 ? turns.size() - 1 - i : i;
  for (unsigned first = 0; first < blocks; first += cluster_size) {
    std::vector<BlockState> cluster(cluster_size);
    machine.cluster = &cluster;
    machine.cluster_meeting = Meeting{(int)fibers.size(), 0, 0};
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      BlockState& block = cluster[rank];
      block.index = first + rank;
      block.rank = rank;
      block.meeting.expected = (int)threads;
      block.warps.resize((threads + 31) / 32);
      for (size_t w = 0; w < block.warps.size(); ++w)
        block.warps[w].meeting.expected = (int)std::min<size_t>(32, threads - 32 * w);
      block.shared.reset((char*)std::malloc(std::max<size_t>(shared_bytes, 1)));
      std::memset(block.shared.get(), 0xff, shared_bytes);
      for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = *fibers[(size_t)rank * threads + t];
        fiber.block = &block;
        fiber.thread = (int)t;
        fiber.turn = 0;
        fiber.waits = Waits::NO;
#ifdef EMULATOR_ASAN
        // A thread leaves its last frames behind, and their red zones on its stack.
        __asan_unpoison_memory_region(fiber.stack.get(), STACK_BYTES);
#endif
#ifdef EMULATOR_TSAN
        // A new stack, for what another block's thread left on it would look like a race.
        fiber.stack.reset(new char[STACK_BYTES]);
#endif
        prepare(fiber.context, fiber.stack.get(), run_thread);
#ifdef EMULATOR_TSAN
        fiber.tsan = __tsan_create_fiber(0);
#endif
      }
    }
    for (size_t left = fibers.size(); left > 0;) {
      if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
      bool moved = false;
      for (size_t i : turns) {
        Fiber& fiber = *fibers[i];
        if (!is_ready(fiber)) continue;
        moved = true;
        resume(fiber);
        if (fiber.waits == Waits::DONE) {
          --left;
          const BlockState& block = *fiber.block;
          if (block.meeting.arrived > 0) report(fibers, block.index, "a thread left a block that waits for it");
        }
      }
      if (!moved) report(fibers, first, "deadlock");
    }
#ifdef EMULATOR_TSAN
    for (auto& fiber : fibers) __tsan_destroy_fiber(fiber->tsan);
#endif
  }
  // Not before: blocks run in turn here, but nothing orders them on a device.
  acquire(&machine.end);
}

inline Index thread_index() { return Index{(unsigned)machine.running->thread, 0, 0}; }
inline Index block_index() { return Index{machine.running->block->index, 0, 0}; }

template <class To, class From>
inline To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
inline void __syncthreads() { emulator::meet(emulator::machine.running->block->meeting, emulator::Waits::BLOCK, true); }

// --- the file machine.cuh, emulated ---------------------------------------------------------------------------------------

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

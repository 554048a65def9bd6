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
#include "fibers.cuh"

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

namespace emulator {

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

// Fibers, and what the sanitizers must know of them: the switches from one stack to another.
#pragma once
#include <cstddef>
#include <cstdint>

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

}  // namespace emulator

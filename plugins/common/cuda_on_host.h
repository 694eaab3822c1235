// Runs CUDA C++ kernels on the CPU, for tests: the kernel source compiles unchanged under g++ -std=c++20.
//
// Emulated: grid and block indices, __syncthreads, shuffles within full warps, dynamic shared memory (filled with 0xff
// bytes, NaN, before every block, so that reading what no thread wrote shows), and the few runtime calls of launchers.
// Blocks run one after the other. Not modelled: the timing of warps, asynchronous copies (they complete at once), memory
// alignment, tensor cores, fast-math, and every kind of memory error that hardware would report (use
// -fsanitize=address for those).
//
// Two schedulers:
//   fibers (default)                   all threads of a block on one host thread, switched at barriers. Quick and
//                                      repeatable: each barrier lets every thread run up to its next barrier.
//   EDGEKIT_CUDA_ON_HOST_THREADS       one host thread per CUDA thread, which ThreadSanitizer follows:
//                                      a missing __syncthreads is then reported even where the numbers come out right.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#ifdef EDGEKIT_CUDA_ON_HOST_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#else
#include <csetjmp>
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// The runtime's names, as far as the launchers use them; "device memory" is host memory.
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = void*;
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                     std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t) {
  for (std::size_t row = 0; row < height; ++row) {
    memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  }
  return cudaSuccess;
}

namespace edgekit::host {

#ifdef EDGEKIT_CUDA_ON_HOST_THREADS

// Orders what __syncthreads orders and no more, or ThreadSanitizer would miss races. Hence not std::barrier: libstdc++
// lets waiters of unrelated barriers share atomics. And hence two slots in turn: a thread that wakes up late takes its
// slot's mutex again, which must not be one that a quicker thread has released after touching memory since.
struct Barrier {
  struct Slot {
    std::mutex mutex;
    std::condition_variable opened;
    int arrived = 0;
    unsigned generation = 0;
  };
  int expected;
  Slot slots[2];
  explicit Barrier(int count) : expected(count) {}
};

// `passed`: how often this thread has waited here. All threads have to reach every barrier: none may end early.
inline void wait(Barrier& barrier, unsigned& passed) {
  Barrier::Slot& slot = barrier.slots[passed++ % 2];
  std::unique_lock<std::mutex> lock(slot.mutex);
  const unsigned generation = slot.generation;
  if (++slot.arrived == barrier.expected) {
    slot.arrived = 0, ++slot.generation;
    slot.opened.notify_all();
  } else {
    slot.opened.wait(lock, [&] { return slot.generation != generation; });
  }
}

#else

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started = false, done = false;
};

inline thread_local jmp_buf scheduler;
inline thread_local Fiber* running = nullptr;

inline void yield() {
  if (_setjmp(running->at) == 0) _longjmp(scheduler, 1);
}

// Runs a fiber up to its next barrier or its end. Not inlined: no local of the caller lives across setjmp.
__attribute__((noinline)) inline void resume(Fiber& fiber) {
  running = &fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

struct Barrier {
  int expected, arrived = 0;
  unsigned generation = 0;
  explicit Barrier(int count) : expected(count) {}
  void open_if_complete() {
    if (arrived != 0 && arrived == expected) arrived = 0, ++generation;
  }
  void arrive_and_drop() {
    --expected;
    open_if_complete();
  }
};

inline void wait(Barrier& barrier, unsigned&) {
  const unsigned generation = barrier.generation;
  ++barrier.arrived;
  barrier.open_if_complete();
  while (barrier.generation == generation) yield();
}

#endif

struct Warp {
  Barrier barrier;
  std::uint64_t values[32];
  explicit Warp(int lanes) : barrier(lanes) {}
};

struct Block {
  Barrier barrier;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<std::uint64_t> shared;
  Block(int threads, std::size_t shared_bytes) : barrier(threads), shared((shared_bytes + 71) / 8, ~std::uint64_t(0)) {
    for (int first = 0; first < threads; first += 32) warps.emplace_back(new Warp(std::min(32, threads - first)));
  }
  unsigned char* dynamic_shared() {  // 64-byte aligned
    const std::uintptr_t start = reinterpret_cast<std::uintptr_t>(shared.data());
    return reinterpret_cast<unsigned char*>((start + 63) & ~std::uintptr_t(63));
  }
};

struct Thread {
  dim3 thread, block, threads, blocks;
  int index = 0;
  Block* state = nullptr;
  unsigned block_barriers = 0, warp_barriers = 0;  // passed
};

#ifdef EDGEKIT_CUDA_ON_HOST_THREADS
inline thread_local Thread self;
inline Thread& current() { return self; }
#else
inline thread_local Thread* self = nullptr;
inline Thread& current() { return *self; }
#endif

inline Thread make_thread(dim3 blocks, dim3 threads, dim3 block, int index, Block* state) {
  const dim3 position(index % threads.x, index / threads.x % threads.y, index / (threads.x * threads.y));
  return Thread{position, block, threads, blocks, index, state, 0, 0};
}

#ifdef EDGEKIT_CUDA_ON_HOST_THREADS

template <class Kernel>
void run_block(dim3 blocks, dim3 threads, dim3 block, std::size_t shared_bytes, Kernel& kernel) {
  const int count = threads.x * threads.y * threads.z;
  Block state(count, shared_bytes);
  std::vector<std::thread> team;
  for (int index = 0; index < count; ++index) {
    team.emplace_back([&, index] {
      self = make_thread(blocks, threads, block, index, &state);
      kernel();
    });
  }
  for (auto& member : team) member.join();
}

#else

constexpr std::size_t kStackBytes = 128 << 10;

// One launch's fibers are run for one block after the other; makecontext only takes int arguments, hence the globals.
struct Job {
  void (*call)(void*);
  void* kernel;
};
inline thread_local Job job;

inline void fiber_main() {
  job.call(job.kernel);
  self->state->warps[self->index / 32]->barrier.arrive_and_drop();
  self->state->barrier.arrive_and_drop();
  running->done = true;
  _longjmp(scheduler, 1);
}

template <class Kernel>
void run_block(dim3 blocks, dim3 threads, dim3 block, std::size_t shared_bytes, Kernel& kernel) {
  static thread_local std::vector<std::unique_ptr<char[]>> stacks;
  const int count = threads.x * threads.y * threads.z;
  Block state(count, shared_bytes);
  std::vector<Fiber> fibers(count);
  std::vector<Thread> team(count);
  while (static_cast<int>(stacks.size()) < count) stacks.emplace_back(new char[kStackBytes]);
  job = {[](void* it) { (*static_cast<Kernel*>(it))(); }, &kernel};
  for (int index = 0; index < count; ++index) {
    team[index] = make_thread(blocks, threads, block, index, &state);
    getcontext(&fibers[index].start);
    fibers[index].start.uc_stack.ss_sp = stacks[index].get();
    fibers[index].start.uc_stack.ss_size = kStackBytes;
    fibers[index].start.uc_link = nullptr;
    makecontext(&fibers[index].start, fiber_main, 0);
  }
  for (int left = count; left > 0;) {
    for (int turn = 0; turn < count; ++turn) {
      if (fibers[turn].done) continue;
      self = &team[turn];
      resume(fibers[turn]);
      left -= fibers[turn].done;
    }
  }
}

#endif

template <class Kernel>
void launch(dim3 blocks, dim3 threads, std::size_t shared_bytes, Kernel kernel) {
  if (threads.x * threads.y * threads.z % 32 != 0 || shared_bytes > (227u << 10)) {
    std::fprintf(stderr, "cuda_on_host: a block of full warps and at most 227 KiB of shared memory, please\n");
    std::abort();
  }
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) run_block(blocks, threads, dim3(x, y, z), shared_bytes, kernel);
}

template <class T>
T shuffle(T value, int source) {
  Warp& warp = *current().state->warps[current().index / 32];
  static_assert(sizeof(T) <= 8);
  memcpy(&warp.values[current().index % 32], &value, sizeof value);
  wait(warp.barrier, current().warp_barriers);
  memcpy(&value, &warp.values[source & 31], sizeof value);
  wait(warp.barrier, current().warp_barriers);
  return value;
}

}  // namespace edgekit::host

#define threadIdx (edgekit::host::current().thread)
#define blockIdx (edgekit::host::current().block)
#define blockDim (edgekit::host::current().threads)
#define gridDim (edgekit::host::current().blocks)

inline void __syncthreads() {
  edgekit::host::Thread& thread = edgekit::host::current();
  edgekit::host::wait(thread.state->barrier, thread.block_barriers);
}

// Every lane of the warp takes part, as in a shuffle.
inline void __syncwarp() { edgekit::host::shuffle(0, edgekit::host::current().index & 31); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  return edgekit::host::shuffle(value, (edgekit::host::current().index & 31) ^ lanes);
}

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return edgekit::host::shuffle(value, lane);
}

// A lane without one so far before it keeps its own.
template <class T>
T __shfl_up_sync(unsigned, T value, int lanes) {
  const int lane = edgekit::host::current().index & 31;
  return edgekit::host::shuffle(value, lane < lanes ? lane : lane - lanes);
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }

// Working memory that a thread keeps between tasks.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace edgekit {

// One allocation, aligned to vectors, handed out in pieces. It never shrinks.
class Arena {
 public:
  void reset(std::size_t bytes) {
    if (bytes > size_) {
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign)));
      size_ = memory_ ? bytes : 0;
      if (!memory_) throw std::bad_alloc();
    }
    used_ = 0;
  }

  template <class A>
  A* take(std::size_t count) {
    A* start = reinterpret_cast<A*>(memory_.get() + used_);
    used_ += bytes<A>(count);
    return start;
  }

  template <class A>
  static std::size_t bytes(std::size_t count) {
    return (count * sizeof(A) + kAlign - 1) / kAlign * kAlign;
  }

 private:
  static constexpr std::size_t kAlign = 64;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0, used_ = 0;
};

}  // namespace edgekit

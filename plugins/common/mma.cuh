// Products of small tiles by one warp: on tensor cores, and by shuffles where the source runs on the CPU.
#pragma once

#include <type_traits>

#include "device.cuh"

namespace edgekit {

// Two neighbouring numbers, the first in the lower half.
template <class T>
__device__ inline std::uint32_t both_of(float first, float second) {
  return from_accum<T>(first).bits | static_cast<std::uint32_t>(from_accum<T>(second).bits) << 16;
}

// c += a b of 16 x 16 and 16 x 8 numbers of T, float16 or bfloat16, summed in float32 (compute capability 8.0 and newer;
// PTX ISA, mma.m16n8k16). With g = lane / 4 and t = lane % 4 a lane holds
//   a   rows g (a[0], a[2]) and g + 8 (a[1], a[3]), inputs 2 t and 2 t + 1 (a[0], a[1]), 2 t + 8 and 2 t + 9 (a[2], a[3])
//   b   column g, inputs 2 t and 2 t + 1 (b[0]), 2 t + 8 and 2 t + 9 (b[1])
//   c   columns 2 t and 2 t + 1 of rows g (c[0], c[1]) and g + 8 (c[2], c[3])
// Which inputs are called so is the caller's choice, where a and b agree. Every lane of the warp takes part.
template <class T>
__device__ inline void multiply_tile(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  static_assert(sizeof(T) == 2);
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, float16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const auto half = [](std::uint32_t two, int which) {
    return to_accum(T{static_cast<std::uint16_t>(two >> (16 * which))});
  };
  for (int from = 0; from < 4; ++from) {  // the lanes of a group hold a quarter of the inputs each
    for (int k = 0; k < 2; ++k) {
      const std::uint32_t rows[2] = {__shfl_sync(0xffffffffu, a[2 * k], 4 * g + from),
                                     __shfl_sync(0xffffffffu, a[2 * k + 1], 4 * g + from)};
      const std::uint32_t columns[2] = {__shfl_sync(0xffffffffu, b[k], 4 * (2 * t) + from),
                                        __shfl_sync(0xffffffffu, b[k], 4 * (2 * t + 1) + from)};
      for (int i = 0; i < 4; ++i)
        for (int which = 0; which < 2; ++which) c[i] += half(rows[i / 2], which) * half(columns[i % 2], which);
    }
  }
#endif
}

}  // namespace edgekit

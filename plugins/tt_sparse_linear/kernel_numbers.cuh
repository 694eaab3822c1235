// Stored numbers on the device: an array, halves, or codes with scales.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

template <class A>
__device__ inline A scale_at(const TtNumbers& n, std::size_t i) {
  const unsigned block = static_cast<unsigned>(n.block);
  const std::size_t at = (block & (block - 1)) == 0 ? i >> (31 - __clz(static_cast<int>(block))) : i / block;
  return static_cast<A>(to_accum(n.scales[at]));
}

// Number i in the type of the sums.
template <class T>
__device__ inline accum_t<T> number_at(const TtNumbers& n, std::size_t i) {
  using A = accum_t<T>;
  if (n.bits == 0) return to_accum(static_cast<const T*>(n.data)[i]);
  if (n.bits == 16) return static_cast<A>(to_accum(static_cast<const float16*>(n.data)[i]));
  const unsigned char* codes = static_cast<const unsigned char*>(n.data);
  const int code = n.bits == 8 ? codes[i] - 128 : (codes[i / 2] >> (i % 2 * 4) & 15) - 8;
  return static_cast<A>(code) * scale_at<A>(n, i);
}

// Numbers i to i + 7, 0 from `count` of them on. `aligned`: i is a multiple of 8, and data of 16 bytes.
template <class T>
__device__ inline void numbers_at(accum_t<T> (&to)[8], const TtNumbers& n, std::size_t i, int count, bool aligned) {
  using A = accum_t<T>;
  if (!aligned || count < 8) {
#pragma unroll
    for (int c = 0; c < 8; ++c) to[c] = c < count ? number_at<T>(n, i + c) : A(0);
  } else if (n.bits == 0) {
    const Vec<T, 4>* fours = reinterpret_cast<const Vec<T, 4>*>(static_cast<const T*>(n.data) + i);
#pragma unroll
    for (int c = 0; c < 8; ++c) to[c] = to_accum(fours[c / 4].at[c % 4]);
  } else if (n.bits == 16) {
    const Vec<float16, 8> eight = reinterpret_cast<const Vec<float16, 8>*>(n.data)[i / 8];
#pragma unroll
    for (int c = 0; c < 8; ++c) to[c] = static_cast<A>(to_accum(eight.at[c]));
  } else {
    const A scale = scale_at<A>(n, i);
    if (n.bits == 8) {
      const Vec<std::uint32_t, 2> words = reinterpret_cast<const Vec<std::uint32_t, 2>*>(n.data)[i / 8];
#pragma unroll
      for (int c = 0; c < 8; ++c)
        to[c] = static_cast<A>(static_cast<int>(words.at[c / 4] >> (c % 4 * 8) & 255) - 128) * scale;
    } else {
      const std::uint32_t word = static_cast<const std::uint32_t*>(n.data)[i / 8];
#pragma unroll
      for (int c = 0; c < 8; ++c) to[c] = static_cast<A>(static_cast<int>(word >> (c * 4) & 15) - 8) * scale;
    }
  }
}

}  // namespace edgekit

// Stored numbers on the device: an array, halves, or codes with scales.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

__device__ inline std::size_t block_of(const TtNumbers& n, std::size_t i) {
  const unsigned block = static_cast<unsigned>(n.block);
  return (block & (block - 1)) == 0 ? i >> (31 - __clz(static_cast<int>(block))) : i / block;
}

template <class A>
__device__ inline A scale_at(const TtNumbers& n, std::size_t i) {
  return static_cast<A>(to_accum(n.scales[block_of(n, i)]));
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

// Numbers i, i + step, ... of which `count` exist, 0 for the others: loads that do not wait for one another.
template <class T, int N>
__device__ inline void numbers_by(accum_t<T> (&to)[N], const TtNumbers& n, std::size_t i, std::size_t step, int count) {
  using A = accum_t<T>;
  if (n.bits == 0) {
    T loaded[N];
#pragma unroll
    for (int c = 0; c < N; ++c) loaded[c] = c < count ? static_cast<const T*>(n.data)[i + c * step] : T{};
#pragma unroll
    for (int c = 0; c < N; ++c) to[c] = to_accum(loaded[c]);
    return;
  }
  std::uint16_t loaded[N];  // halves, or codes
  float16 scales[N];
#pragma unroll
  for (int c = 0; c < N; ++c) {
    const std::size_t at = i + (c < count ? c : 0) * step;
    if (n.bits == 16) {
      loaded[c] = c < count ? static_cast<const std::uint16_t*>(n.data)[at] : 0;
    } else {
      const unsigned char byte = c < count ? static_cast<const unsigned char*>(n.data)[n.bits == 8 ? at : at / 2] : 0;
      loaded[c] = n.bits == 8 ? byte : byte >> (at % 2 * 4) & 15;
      scales[c] = c < count ? n.scales[block_of(n, at)] : float16{0};
    }
  }
#pragma unroll
  for (int c = 0; c < N; ++c) {
    const A half = static_cast<A>(to_accum(float16{loaded[c]}));
    const A code = static_cast<A>(loaded[c] - (n.bits == 8 ? 128 : 8));
    to[c] = n.bits == 16 ? half : code * static_cast<A>(to_accum(scales[c]));
    if (c >= count) to[c] = A(0);
  }
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

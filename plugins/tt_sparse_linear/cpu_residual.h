// Products with the rows of the residual: one token gathers its inputs, many tokens read them side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "../common/ort_operator.h"
#include "../common/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace edgekit::tt_sparse {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a word must be the earlier column");

// x[columns[0]], x[columns[1]], ... for as many columns as lanes.
template <class A>
inline simd::Vector<A> gather(const A* x, const std::uint16_t* columns) {
  simd::Vector<A> found;
  for (int lane = 0; lane < simd::kLanes<A>; ++lane) found[lane] = x[columns[lane]];
  return found;
}

#if defined(__AVX512F__)
template <>
inline simd::Vector<float> gather(const float* x, const std::uint16_t* columns) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
  const __m512i places = _mm512_maskz_cvtepu16_epi32(0xffff, halves);
  return simd::bits_as<simd::Vector<float>>(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, places, x, 4));
}
#elif defined(__AVX2__)
template <>
inline simd::Vector<float> gather(const float* x, const std::uint16_t* columns) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns));
  return simd::bits_as<simd::Vector<float>>(_mm256_i32gather_ps(x, _mm256_cvtepu16_epi32(halves), 4));
}
#endif

// Refuses a row that names an input which does not exist.
inline void check_columns(const std::uint16_t* columns, int entries, int inputs, int row) {
  std::uint16_t most = 0;
  for (int z = 0; z < entries; ++z) most = std::max(most, columns[z]);
  if (most >= inputs)
    throw ort::Refusal("columns must be inputs, 0 to " + std::to_string(inputs - 1),
                       "row " + std::to_string(row) + " has column " + std::to_string(most));
}

// sum_z values[z] x[columns[z]]
template <class T, class A = accum_t<T>>
A gathered(const A* x, const std::uint16_t* columns, const T* values, int entries) {
  constexpr int lanes = simd::kLanes<A>;
  simd::Vector<A> even = {}, odd = {};
  int z = 0;
  for (; z + 2 * lanes <= entries; z += 2 * lanes) {
    even += gather(x, columns + z) * simd::load_accum(values + z);
    odd += gather(x, columns + z + lanes) * simd::load_accum(values + z + lanes);
  }
  A total = 0;
  for (; z < entries; ++z) total += x[columns[z]] * static_cast<A>(to_accum(values[z]));
  return total + simd::sum<A>(even + odd);
}

// sums[m] = sum_z values[z] across[columns[z]][m] for m < padded, a multiple of the lanes; across is [K][padded].
template <class T, class A = accum_t<T>>
void side_by_side(const A* across, int padded, const std::uint16_t* columns, const T* values, int entries, A* sums) {
  constexpr int lanes = simd::kLanes<A>, most = 4;
  for (int m = 0; m < padded; m += most * lanes) {
    const int vectors = std::min(most, (padded - m) / lanes);
    simd::Vector<A> sum[most] = {};
    const auto add = [&](auto at_once) {
      constexpr int count = decltype(at_once)::value;
      for (int z = 0; z < entries; ++z) {
        const A* row = across + static_cast<std::ptrdiff_t>(columns[z]) * padded + m;
        const A value = static_cast<A>(to_accum(values[z]));
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i) sum[i] += simd::load(row + i * lanes) * value;
      }
    };
    switch (vectors) {
      case 1: add(std::integral_constant<int, 1>{}); break;
      case 2: add(std::integral_constant<int, 2>{}); break;
      case 3: add(std::integral_constant<int, 3>{}); break;
      default: add(std::integral_constant<int, 4>{});
    }
    for (int i = 0; i < vectors; ++i) simd::store(sums + m + i * lanes, sum[i]);
  }
}

}  // namespace edgekit::tt_sparse

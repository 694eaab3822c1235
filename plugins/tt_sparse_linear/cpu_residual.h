// Products with the rows of the residual: few tokens gather their inputs or pass over all of them by a mask, many tokens
// read their inputs side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "../common/ort_operator.h"
#include "cpu_numbers.h"

namespace edgekit::tt_sparse {

// Values of the attribute: where entries stand.
enum Residual : int { kNothing = 0, kColumns = 1, kBitmap = 2, kGroups = 3 };
constexpr int kGroup = 4;

// x[columns[0]], x[columns[1]], ... for as many columns as lanes.
template <class A, class C>
inline simd::Vector<A> gather(const A* x, const C* columns) {
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

// Whether all of some columns are inputs.
inline bool all_inputs(const std::uint16_t* columns, std::size_t count, int inputs) {
  std::uint16_t most = 0;
  for (std::size_t z = 0; z < count; ++z) most = std::max(most, columns[z]);
  return count == 0 || most < inputs;
}

// sum_z values[z] x[columns[z]]; values may be read to the end of a vector.
template <class A, class C>
A gathered(const A* x, const C* columns, const A* values, int entries) {
  constexpr int lanes = simd::kLanes<A>;
  simd::Vector<A> even = {}, odd = {};
  int z = 0;
  for (; z + 2 * lanes <= entries; z += 2 * lanes) {
    even += gather(x, columns + z) * simd::load(values + z);
    odd += gather(x, columns + z + lanes) * simd::load(values + z + lanes);
  }
  if (z + lanes <= entries) {
    even += gather(x, columns + z) * simd::load(values + z);
    z += lanes;
  }
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (std::is_same_v<A, float> && sizeof(C) == 2) {
    const __mmask16 there = static_cast<__mmask16>((1u << (entries - z)) - 1);
    const __m512i places = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(there, columns + z));
    const __m512 found = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, places, x, 4);
    odd += simd::bits_as<simd::Vector<float>>(_mm512_mul_ps(found, _mm512_maskz_loadu_ps(there, values + z)));
    return simd::sum<A>(even + odd);
  }
#endif
  A total[4] = {};
  for (int i = 0; z < entries; ++z, i = (i + 1) % 4) total[i] += x[columns[z]] * values[z];
  return total[0] + total[1] + (total[2] + total[3]) + simd::sum<A>(even + odd);
}

// sums[m] = sum_z values[z] across[columns[z]][m] for m < padded, a multiple of the lanes; across is [K][padded].
template <class A, class C>
void side_by_side(const A* across, int padded, const C* columns, const A* values, int entries, A* sums) {
  constexpr int lanes = simd::kLanes<A>, most = 4;
  for (int m = 0; m < padded; m += most * lanes) {
    const int vectors = std::min(most, (padded - m) / lanes);
    simd::Vector<A> sum[most] = {};
    const auto add = [&](auto at_once) {
      constexpr int count = decltype(at_once)::value;
      int z = 0;
      if constexpr (count == 1) {  // four sums, so that none waits for the one before
        simd::Vector<A> apart[4] = {};
        for (; z + 4 <= entries; z += 4) {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i)
            apart[i] += simd::load(across + static_cast<std::ptrdiff_t>(columns[z + i]) * padded + m) * values[z + i];
        }
        sum[0] = (apart[0] + apart[1]) + (apart[2] + apart[3]);
      }
      for (; z < entries; ++z) {
        const A* row = across + static_cast<std::ptrdiff_t>(columns[z]) * padded + m;
        const A value = values[z];
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

// ---- rows as masks: a bit for each input, 16 to a piece -------------------------------------------------------------

constexpr int kPiece = 16;
inline int pieces_of(int inputs) { return (inputs + kPiece - 1) / kPiece; }

// The bits start to start + inputs - 1 of a bitmap of `all` bits.
inline void mask_of_bits(const std::uint8_t* bits, std::size_t all, std::size_t start, int inputs, std::uint16_t* mask) {
  const std::size_t bytes = (all + 7) / 8;
  for (int piece = 0; piece < pieces_of(inputs); ++piece) {
    const std::size_t at = start + static_cast<std::size_t>(piece) * kPiece;
    std::uint32_t word = 0;
    detail::take<sizeof word>(&word, bits + at / 8, bytes - at / 8);
    mask[piece] = static_cast<std::uint16_t>(word >> at % 8);
  }
  if (const int rest = inputs % kPiece) mask[pieces_of(inputs) - 1] &= static_cast<std::uint16_t>((1u << rest) - 1);
}

// Two groups of two places each, in a byte, as bits of 8 inputs.
struct TwoGroups {
  std::uint8_t bits[256] = {};
  constexpr TwoGroups() {
    for (int byte = 0; byte < 256; ++byte)
      for (int i = 0; i < 4; ++i) bits[byte] = static_cast<std::uint8_t>(bits[byte] | 1 << ((byte >> 2 * i & 3) + i / 2 * 4));
  }
};

// Of places in groups of 4 inputs, `kept` of each, from group `start` on.
inline void mask_of_groups(const std::uint8_t* places, std::size_t start, int inputs, int kept, std::uint16_t* mask) {
  std::fill(mask, mask + pieces_of(inputs), std::uint16_t(0));
  std::size_t at = start * kept;
  if (kept == 2 && at % 4 == 0 && inputs % 8 == 0) {
    static constexpr TwoGroups table;
    for (int i = 0; i < inputs / 8; ++i)
      mask[i / 2] |= static_cast<std::uint16_t>(table.bits[places[at / 4 + i]] << i % 2 * 8);
    return;
  }
  for (int column = 0; column < inputs; column += kGroup) {
    unsigned group = 0;
    for (int i = 0; i < kept; ++i, ++at) group |= 1u << (places[at / 4] >> at % 4 * 2 & 3);
    mask[column / kPiece] |= static_cast<std::uint16_t>(group << column % kPiece);
  }
}

inline int ones(const std::uint16_t* mask, int pieces) {
  int count = 0, piece = 0;
  for (; piece + 4 <= pieces; piece += 4) {
    std::uint64_t four;
    std::memcpy(&four, mask + piece, sizeof four);
    count += __builtin_popcountll(four);
  }
  for (; piece < pieces; ++piece) count += __builtin_popcount(mask[piece]);
  return count;
}

// The inputs whose bits are set, in order; room for kPiece more than that.
inline void columns_of_mask(const std::uint16_t* mask, int pieces, std::int32_t* columns) {
  for (int piece = 0; piece < pieces; ++piece) {
#if defined(__AVX512F__)
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i all = _mm512_add_epi32(lanes, _mm512_set1_epi32(piece * kPiece));
    _mm512_storeu_si512(columns, _mm512_maskz_compress_epi32(mask[piece], all));
    columns += __builtin_popcount(mask[piece]);
#else
    for (unsigned left = mask[piece]; left; left &= left - 1) *columns++ = piece * kPiece + __builtin_ctz(left);
#endif
  }
}

#if defined(__AVX512F__)
// sum over the set bits of the next value times x; x and values may be read to the end of a piece.
inline float masked(const float* x, const std::uint16_t* mask, int pieces, const float* values) {
  __m512 sum[4] = {};
  int piece = 0;
  const auto add = [&](int i) {
    const __mmask16 bits = mask[piece + i];
    __m512 next = _mm512_loadu_ps(values);
    asm("" : "+v"(next));  // an expansion from memory is microcode on some processors
    const __m512 spread = _mm512_maskz_expand_ps(bits, next);
    sum[i] = _mm512_fmadd_ps(spread, _mm512_loadu_ps(x + static_cast<std::ptrdiff_t>(piece + i) * kPiece), sum[i]);
    values += __builtin_popcount(bits);
  };
  for (; piece + 4 <= pieces; piece += 4) {
    add(0), add(1), add(2), add(3);
  }
  for (; piece < pieces; ++piece) add(0);
  const __m512 total = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
  return simd::sum<float>(simd::bits_as<simd::Vector<float>>(total));
}

// The row that the bits and values stand for; values may be read to the end of a piece.
inline void spread(const std::uint16_t* mask, int pieces, const float* values, float* row) {
  for (int piece = 0; piece < pieces; ++piece, row += kPiece) {
    __m512 next = _mm512_loadu_ps(values);
    asm("" : "+v"(next));
    _mm512_storeu_ps(row, _mm512_maskz_expand_ps(mask[piece], next));
    values += __builtin_popcount(mask[piece]);
  }
}

// Two of each group of 4 inputs, whose number is a multiple of 32: places of 2 bits choose among two vectors of x.
inline float two_of_four(const float* x, const std::uint8_t* places, int inputs, const float* values) {
  const __m512i first = _mm512_set_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
  const __m512i shifts = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  __m512 sum[2] = {};
  for (int k = 0, i = 0; k < inputs; k += 2 * kPiece, i ^= 1, values += kPiece, places += 4) {
    int word;
    std::memcpy(&word, places, sizeof word);
    const __m512i shifted = _mm512_maskz_srlv_epi32(0xffff, _mm512_set1_epi32(word), shifts);
    const __m512i at = _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(3), first, 0xea);  // shifted & 3 | first
    const __m512 found = _mm512_permutex2var_ps(_mm512_loadu_ps(x + k), at, _mm512_loadu_ps(x + k + kPiece));
    sum[i] = _mm512_fmadd_ps(found, _mm512_loadu_ps(values), sum[i]);
  }
  return simd::sum<float>(simd::bits_as<simd::Vector<float>>(_mm512_add_ps(sum[0], sum[1])));
}
#endif

}  // namespace edgekit::tt_sparse

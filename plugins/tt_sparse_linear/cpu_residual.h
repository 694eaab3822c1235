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

// Whether all of some columns are inputs.
inline bool all_inputs(const std::uint16_t* columns, std::size_t count, int inputs) {
  std::uint16_t most = 0;
  for (std::size_t z = 0; z < count; ++z) most = std::max(most, columns[z]);
  return count == 0 || most < inputs;
}

// sum_z values[z] x[columns[z]]. Four inputs at a time are put into a vector one by one: processors' gather instructions
// took twice as long (AVX-512 on Zen 5) where they exist.
template <class A, class C>
inline A gathered(const A* x, const C* columns, const A* values, int entries) {
  typedef A Four __attribute__((vector_size(4 * sizeof(A))));
  Four even = {}, odd = {};
  const auto add = [&](Four& sum, int z) {
    const Four found = {x[columns[z]], x[columns[z + 1]], x[columns[z + 2]], x[columns[z + 3]]};
    Four value;
    std::memcpy(&value, values + z, sizeof value);
    sum += found * value;
  };
  int z = 0;
  for (; z + 8 <= entries; z += 8) {
    add(even, z);
    add(odd, z + 4);
  }
  if (z + 4 <= entries) {
    add(even, z);
    z += 4;
  }
  A total = 0;
  for (; z < entries; ++z) total += x[columns[z]] * values[z];
  const Four sum = even + odd;
  return total + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
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
    std::uint8_t* bytes = reinterpret_cast<std::uint8_t*>(mask);
    for (int i = 0; i < inputs / 8; ++i) bytes[i] = table.bits[places[at / 4 + i]];
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

// The inputs whose bits are set, in order; room for 2 kPiece more than that.
template <class C>
inline void columns_of_mask(const std::uint16_t* mask, int pieces, C* columns) {
  int piece = 0;
#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
  if constexpr (sizeof(C) == 2) {
    static constexpr std::uint16_t kLanes[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    __m512i all = _mm512_loadu_si512(kLanes);
    for (; piece + 2 <= pieces; piece += 2, all = _mm512_add_epi16(all, _mm512_set1_epi16(2 * kPiece))) {
      std::uint32_t bits;
      std::memcpy(&bits, mask + piece, sizeof bits);
      _mm512_storeu_si512(columns, _mm512_maskz_compress_epi16(bits, all));
      columns += __builtin_popcount(bits);
    }
  }
#endif
  for (; piece < pieces; ++piece)
    for (unsigned left = mask[piece]; left; left &= left - 1)
      *columns++ = static_cast<C>(piece * kPiece + __builtin_ctz(left));
}

#if defined(__AVX512F__)
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
// `values(i)`: those of numbers 16 i to 16 i + 15.
template <class Values>
inline float two_of_four(const float* x, const std::uint8_t* places, int inputs, const Values& values) {
  const __m512i first = _mm512_set_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
  const __m512i shifts = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  __m512 sum[2] = {};
  for (int k = 0, i = 0; k < inputs; k += 2 * kPiece, ++i, places += 4) {
    int word;
    std::memcpy(&word, places, sizeof word);
    const __m512i shifted = _mm512_maskz_srlv_epi32(0xffff, _mm512_set1_epi32(word), shifts);
    const __m512i at = _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(3), first, 0xea);  // shifted & 3 | first
    const __m512 found = _mm512_permutex2var_ps(_mm512_loadu_ps(x + k), at, _mm512_loadu_ps(x + k + kPiece));
    sum[i & 1] = _mm512_fmadd_ps(found, values(i), sum[i & 1]);
  }
  return simd::sum<float>(simd::bits_as<simd::Vector<float>>(_mm512_add_ps(sum[0], sum[1])));
}
#endif

}  // namespace edgekit::tt_sparse

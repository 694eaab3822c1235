// Stored numbers in the type of the sums: an array, halves, or codes of 8 or 4 bits with a float16 scale per block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../common/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace edgekit::tt_sparse {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as the bytes that were stored");

constexpr int kUnit = 16;  // numbers that are made at once; blocks are multiples of it

// A number is scale (code - 2^(bits-1)).
template <class T>
struct Numbers {
  int bits = 0;   // 0: T; 16: float16; 8, 4: codes
  int block = 0;  // numbers to a scale, a multiple of kUnit
  const void* data = nullptr;
  const float16* scales = nullptr;
};

// Room that `widened` needs for `count` numbers.
constexpr std::size_t widened_room(std::size_t count) { return count + 3 * kUnit; }

namespace detail {

// Copies `Size` bytes, or the `bytes` that there are; one instruction where all are there.
template <std::size_t Size>
inline void take(void* to, const void* from, std::size_t bytes) {
  if (bytes >= Size)
    std::memcpy(to, from, Size);
  else
    std::memcpy(to, from, bytes);
}

// kUnit codes.
template <int Bits, class A>
inline void decode(const std::uint8_t* from, A scale, A* to) {
  for (int i = 0; i < kUnit; ++i) {
    const int code = Bits == 8 ? from[i] - 128 : (from[i / 2] >> i % 2 * 4 & 15) - 8;
    to[i] = static_cast<A>(code) * scale;
  }
}

#if defined(__AVX512F__)
// kUnit codes in the type of the sums, without their scale.
template <int Bits>
inline __m512 codes_of(const std::uint8_t* from) {
  if constexpr (Bits == 8) {
    const __m128i flipped = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)), _mm_set1_epi8(-128));
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, flipped));
  } else {
    std::int64_t unit;
    std::memcpy(&unit, from, sizeof unit);
    const __m512i places = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512i shifts = _mm512_set_epi32(28, 24, 20, 16, 12, 8, 4, 0, 28, 24, 20, 16, 12, 8, 4, 0);
    const __m512i words = _mm512_maskz_permutexvar_epi32(0xffff, places, _mm512_set1_epi64(unit));
    const __m512 table = _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
    return _mm512_maskz_permutexvar_ps(0xffff, _mm512_maskz_srlv_epi32(0xffff, words, shifts), table);
  }
}

template <int Bits>
inline void decode(const std::uint8_t* from, float scale, float* to) {
  _mm512_storeu_ps(to, _mm512_mul_ps(codes_of<Bits>(from), _mm512_set1_ps(scale)));
}
#elif defined(__AVX2__)
template <int Bits>
inline void decode(const std::uint8_t* from, float scale, float* to) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (int half = 0; half < 2; ++half) {
    __m256i codes;
    if constexpr (Bits == 8) {
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8 * half));
      codes = _mm256_sub_epi32(_mm256_cvtepu8_epi32(eight), _mm256_set1_epi32(128));
    } else {
      int word;
      std::memcpy(&word, from + 4 * half, sizeof word);
      const __m256i shifts = _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0);
      codes = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shifts), _mm256_set1_epi32(15));
      codes = _mm256_sub_epi32(codes, _mm256_set1_epi32(8));
    }
    _mm256_storeu_ps(to + 8 * half, _mm256_mul_ps(_mm256_cvtepi32_ps(codes), factor));
  }
}
#endif

inline float scale_of(float16 scale) {
#if defined(__F16C__)
  return _cvtsh_ss(scale.bits);
#else
  return to_accum(scale);
#endif
}

// The units from `first` on that hold what is before `end`; the last may be cut by the end of the data.
template <int Bits, class A>
inline void decode_units(const std::uint8_t* data, std::size_t all, const float16* scales, std::size_t block,
                         std::size_t first, std::size_t end, A* to) {
  constexpr std::size_t size = kUnit * Bits / 8;
  const std::size_t whole = std::min(end, all / kUnit * kUnit);
  const float16* of_block = scales + first / block;
  std::size_t left = block - first % block, at = first;
  const std::uint8_t* from = data + first * Bits / 8;
  while (at < whole) {
    const A scale = static_cast<A>(scale_of(*of_block++));
    const std::size_t stop = std::min(whole, at + left);
    for (; at < stop; at += kUnit, from += size, to += kUnit) decode<Bits>(from, scale, to);
    left = block;
  }
  if (at >= end) return;
  std::uint8_t unit[size] = {};
  std::memcpy(unit, from, ((all - at) * Bits + 7) / 8);
  decode<Bits>(unit, static_cast<A>(scale_of(scales[at / block])), to);
}

template <class S, class A>
inline void convert(const S* from, std::size_t count, A* to) {
  std::size_t i = 0;
  constexpr std::size_t lanes = simd::kLanes<A>;
  if constexpr (std::is_same_v<A, float>)
    for (; i + lanes <= count; i += lanes) simd::store(to + i, simd::load_accum(from + i));
  for (; i < count; ++i) to[i] = static_cast<A>(to_accum(from[i]));
}

}  // namespace detail

// Numbers start to start + count - 1: where they lie already, or made in `room`, of widened_room(count). `all`: how many
// there are, of which no more are read.
template <class T, class A = accum_t<T>>
const A* widened(const Numbers<T>& numbers, std::size_t all, std::size_t start, std::size_t count, A* room) {
  if (numbers.bits == 0) {
    if constexpr (std::is_same_v<T, A>) return static_cast<const A*>(numbers.data) + start;
    detail::convert(static_cast<const T*>(numbers.data) + start, count, room);
    return room;
  }
  if (numbers.bits == 16) {
    detail::convert(static_cast<const float16*>(numbers.data) + start, count, room);
    return room;
  }
  const std::size_t first = start / kUnit * kUnit, end = start + count;
  const std::uint8_t* data = static_cast<const std::uint8_t*>(numbers.data);
  if (numbers.bits == 8)
    detail::decode_units<8>(data, all, numbers.scales, numbers.block, first, end, room);
  else
    detail::decode_units<4>(data, all, numbers.scales, numbers.block, first, end, room);
  return room + (start - first);
}

}  // namespace edgekit::tt_sparse

// Integers of 32 bits in as many lanes as the machine has, for the base: fields of bytes, and products of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../common/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace edgekit::tt_sparse::lanes {

// Every machine has:
//   Ints, Floats        kCount lanes
//   load(from)          lanes as they lie
//   field<Shift>(w, m)  each byte of w shifted down by Shift, and its bits of mask m
//   all(x)              x in every lane
//   dot(sum, codes, x)  sum + the products of a lane's four bytes: codes 0 to 15, x signed
//   times(a, b)         a b, a of 0 to 15 and b of 16 bits with a sign
//   planes<Bits>(from, first)  of planes of 16 bits: bit b of lane i is bit first + i of plane b
//   whole(x), real(x)   to integers, rounded, and back
//   digits(x, to)       the lower byte of each lane, with its sign, to to[0 ...]; gives what is left, by 256

#if defined(__AVX512F__) && defined(__AVX512VNNI__) && defined(__AVX512BW__)

constexpr int kCount = 16;
typedef __m512i Ints;
typedef __m512 Floats;

inline Ints load(const void* from) { return _mm512_loadu_si512(from); }
inline Ints all(std::int32_t x) { return _mm512_set1_epi32(x); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
template <int Shift>
inline Ints field(Ints w, Ints mask) {
  if constexpr (Shift == 0) return _mm512_and_si512(w, mask);
  return _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, w, Shift), mask);
}
inline Ints dot(Ints sum, Ints codes, Ints x) { return _mm512_dpbusd_epi32(sum, codes, x); }
inline Ints times(Ints a, Ints b) { return _mm512_dpwssd_epi32(_mm512_setzero_si512(), a, b); }
inline Ints times_256(Ints a) { return _mm512_maskz_slli_epi32(0xffff, a, 8); }
inline Floats real(Ints x) { return _mm512_maskz_cvtepi32_ps(0xffff, x); }
inline Ints whole(Floats x) { return _mm512_maskz_cvtps_epi32(0xffff, x); }
inline Ints digits(Ints x, std::int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi32_epi8(0xffff, x));
  return _mm512_maskz_srai_epi32(0xffff, add(x, all(128)), 8);
}
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats half(const float16* from) {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
template <int Bits>
inline Ints planes(const std::uint16_t* from, int) {
  Ints found = _mm512_maskz_set1_epi32(from[0], 1);
  for (int b = 1; b < Bits; ++b) found = _mm512_mask_add_epi32(found, from[b], found, all(1 << b));
  return found;
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

constexpr int kCount = 8;
typedef __m256i Ints;
typedef __m256 Floats;

inline Ints load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline Ints all(std::int32_t x) { return _mm256_set1_epi32(x); }
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
template <int Shift>
inline Ints field(Ints w, Ints mask) {
  return _mm256_and_si256(Shift == 0 ? w : _mm256_srli_epi32(w, Shift), mask);
}
inline Ints dot(Ints sum, Ints codes, Ints x) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, codes, x);
#else
  // Two products of at most 15 * 128 do not reach the limits of 16 bits.
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
#endif
}
inline Ints times(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }
inline Ints times_256(Ints a) { return _mm256_slli_epi32(a, 8); }
inline Floats real(Ints x) { return _mm256_cvtepi32_ps(x); }
inline Ints whole(Floats x) { return _mm256_cvtps_epi32(x); }
inline Ints digits(Ints x, std::int8_t* to) {
  const Ints firsts = _mm256_set1_epi32(0x0c080400), four = _mm256_shuffle_epi8(x, firsts);
  const int low = _mm256_cvtsi256_si32(four), high = _mm256_extract_epi32(four, 4);
  std::memcpy(to, &low, 4);
  std::memcpy(to + 4, &high, 4);
  return _mm256_srai_epi32(add(x, all(128)), 8);
}
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline Floats half(const float16* from) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
template <int Bits>
inline Ints planes(const std::uint16_t* from, int first) {
  const Ints places = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), one = all(1);
  Ints found = all(0);
  for (int b = 0; b < Bits; ++b) {
    const Ints bit = _mm256_and_si256(_mm256_srlv_epi32(all(from[b] >> first), places), one);
    found = either(found, _mm256_slli_epi32(bit, b));
  }
  return found;
}

#else

constexpr int kCount = simd::kLanes<float>;
typedef std::int32_t Ints __attribute__((vector_size(4 * kCount)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kCount)));
typedef simd::Vector<float> Floats;

inline Ints load(const void* from) {
  Ints found;
  std::memcpy(&found, from, sizeof found);
  return found;
}
inline Ints all(std::int32_t x) { return Ints{} + x; }
inline Ints add(Ints a, Ints b) { return a + b; }
inline Ints either(Ints a, Ints b) { return a | b; }
template <int Shift>
inline Ints field(Ints w, Ints mask) {
  return reinterpret_cast<Ints>(reinterpret_cast<Words>(w) >> Shift) & mask;
}
inline Ints dot(Ints sum, Ints codes, Ints x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return reinterpret_cast<Ints>(vdotq_s32(reinterpret_cast<int32x4_t>(sum), reinterpret_cast<int8x16_t>(codes),
                                          reinterpret_cast<int8x16_t>(x)));
#else
  return sum + (codes & 255) * (x << 24 >> 24) + (codes >> 8 & 255) * (x << 16 >> 24) +
         (codes >> 16 & 255) * (x << 8 >> 24) + (codes >> 24) * (x >> 24);
#endif
}
inline Ints times(Ints a, Ints b) { return a * b; }
inline Ints times_256(Ints a) { return a * 256; }
inline Floats real(Ints x) { return __builtin_convertvector(x, Floats); }
inline Floats all(float x) { return Floats{} + x; }
inline Ints whole(Floats x) {
  const Ints sign = reinterpret_cast<Ints>(x) & std::int32_t(0x80000000u);
  return __builtin_convertvector(x + reinterpret_cast<Floats>(sign | reinterpret_cast<Ints>(all(0.5f))), Ints);
}
inline Ints digits(Ints x, std::int8_t* to) {
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<std::int8_t>(x[i]);
  return (x + 128) >> 8;
}
inline Floats half(const float16* from) { return simd::load_accum(from); }
inline Floats times(Floats a, Floats b) { return a * b; }
inline Floats fused(Floats a, Floats b, Floats c) { return a * b + c; }
inline Floats load(const float* from) { return simd::load(from); }
inline void store(float* to, Floats x) { simd::store(to, x); }
template <int Bits>
inline Ints planes(const std::uint16_t* from, int first) {
  Ints found = {};
  for (int b = 0; b < Bits; ++b)
    for (int i = 0; i < kCount; ++i) found[i] |= (from[b] >> (first + i) & 1) << b;
  return found;
}

#endif

inline std::int32_t sum(Ints x) {
  std::int32_t each[kCount], total = 0;
  std::memcpy(each, &x, sizeof each);
  for (int i = 0; i < kCount; ++i) total += each[i];
  return total;
}

// The codes of a chunk of a tile's rows in these lanes, those of inputs 4 g to 4 g + 3 in the bytes of codes[g].
// `from`: the lanes of the chunk's first word; the other words follow every `stride` bytes.
template <int Bits>
inline void unpack(const std::uint8_t* from, std::size_t stride, Ints* codes) {
  Ints words[Bits];
  for (int w = 0; w < Bits; ++w) words[w] = load(from + w * stride);
  if constexpr (Bits == 4) {
    const Ints mask = all(0x0f0f0f0f);
    for (int w = 0; w < 4; ++w) {
      codes[2 * w] = field<0>(words[w], mask);
      codes[2 * w + 1] = field<4>(words[w], mask);
    }
  } else if constexpr (Bits == 2) {
    const Ints mask = all(0x03030303);
    for (int w = 0; w < 2; ++w) {
      codes[4 * w] = field<0>(words[w], mask);
      codes[4 * w + 1] = field<2>(words[w], mask);
      codes[4 * w + 2] = field<4>(words[w], mask);
      codes[4 * w + 3] = field<6>(words[w], mask);
    }
  } else {
    static_assert(Bits == 3);
    const Ints mask = all(0x07070707), lower = all(0x03030303), third = all(0x04040404);
    for (int w = 0; w < 3; ++w) {
      codes[2 * w] = field<0>(words[w], mask);
      codes[2 * w + 1] = field<3>(words[w], mask);
    }
    codes[6] = either(field<6>(words[0], lower), field<4>(words[2], third));
    codes[7] = either(field<6>(words[1], lower), field<5>(words[2], third));
  }
}

}  // namespace edgekit::tt_sparse::lanes

// Vectors of the width of the machine that the source is compiled for, by the vector extensions of GCC and Clang:
// AVX-512, AVX, or 16 bytes (SSE2, NEON, and what else the compiler maps them to).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core.h"

#if defined(__F16C__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace edgekit::simd {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

template <class A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(A));
};
template <class A>
using Vector = typename VectorOf<A>::type;
template <class A>
constexpr int kLanes = VectorOf<A>::lanes;

// Of the size of A: what comparisons give and shuffles take.
template <class A>
using IntOf = std::conditional_t<sizeof(A) == 4, std::int32_t, std::int64_t>;

template <class A>
inline Vector<A> load(const A* from) {
  Vector<A> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class A>
inline void store(A* to, Vector<A> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class A>
inline Vector<A> broadcast(A x) {
  return Vector<A>{} + x;
}

template <class To, class From>
inline To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}

// ---- from storage to accumulation type -----------------------------------------------------------------------------

inline Vector<float> load_accum(const float* from) { return load(from); }
inline Vector<double> load_accum(const double* from) { return load(from); }

namespace detail {
typedef std::uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
typedef std::uint32_t WordBits __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t Words __attribute__((vector_size(kVectorBytes)));
}  // namespace detail

inline Vector<float> load_accum(const bfloat16* from) {
  detail::HalfBits half;
  std::memcpy(&half, from, sizeof half);
  const detail::WordBits word = __builtin_convertvector(half, detail::WordBits) << 16;
  return bits_as<Vector<float>>(word);
}

inline Vector<float> load_accum(const float16* from) {
#if defined(__AVX512F__) && defined(__F16C__)
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return bits_as<Vector<float>>(_mm512_maskz_cvtph_ps(0xffff, half));
#elif defined(__F16C__)
  return bits_as<Vector<float>>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  detail::HalfBits half;
  std::memcpy(&half, from, sizeof half);
  const detail::Words word = __builtin_convertvector(half, detail::Words);
  const detail::Words sign = (word & 0x8000) << 16, magnitude = word & 0x7fff;
  const detail::Words normal = (magnitude << 13) + (112 << 23);
  const detail::Words special = (magnitude << 13) | 0x7f800000;
  const Vector<float> small = __builtin_convertvector(magnitude, Vector<float>) * 5.9604644775390625e-8f;  // 2^-24
  const detail::Words is_small = magnitude < 0x400, is_special = magnitude >= 0x7c00;
  detail::Words bits = (is_small & bits_as<detail::Words>(small)) | (~is_small & normal);
  bits = (is_special & special) | (~is_special & bits) | sign;
  return bits_as<Vector<float>>(bits);
#endif
}

// The first `count` lanes, 0 in the others.
template <class T>
inline Vector<accum_t<T>> load_accum_part(const T* from, int count) {
  T whole[kLanes<accum_t<T>>] = {};
  std::memcpy(whole, from, static_cast<std::size_t>(count) * sizeof(T));
  return load_accum(whole);
}

// ---- reductions and transposition ----------------------------------------------------------------------------------

template <class A>
inline A sum(Vector<A> v) {
  A total = 0;
  for (int lane = 0; lane < kLanes<A>; ++lane) total += v[lane];
  return total;
}

#if defined(__AVX__)
namespace detail {
inline float sum_of_8(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
}  // namespace detail
template <>
inline float sum<float>(Vector<float> v) {
#if defined(__AVX512F__)
  struct Halves {
    __m256 low, high;
  };
  const Halves halves = bits_as<Halves>(v);
  return detail::sum_of_8(_mm256_add_ps(halves.low, halves.high));
#else
  return detail::sum_of_8(bits_as<__m256>(v));
#endif
}
#endif

namespace detail {

// One stage of a transposition: afterwards a holds, where (lane & Step) == 0, its own lane, else b's lane - Step;
// b holds a's lane + Step, or its own.
template <int Step, class A, int... Lane>
inline void exchange(Vector<A>& a, Vector<A>& b, std::integer_sequence<int, Lane...>) {
  constexpr int n = kLanes<A>;
#if defined(__clang__)
  const Vector<A> low = __builtin_shufflevector(a, b, ((Lane & Step) ? n + Lane - Step : Lane)...);
  const Vector<A> high = __builtin_shufflevector(a, b, ((Lane & Step) ? n + Lane : Lane + Step)...);
#else
  typedef IntOf<A> Index __attribute__((vector_size(kVectorBytes)));
  const Vector<A> low = __builtin_shuffle(a, b, Index{((Lane & Step) ? n + Lane - Step : Lane)...});
  const Vector<A> high = __builtin_shuffle(a, b, Index{((Lane & Step) ? n + Lane : Lane + Step)...});
#endif
  a = low;
  b = high;
}

template <int Step, class A>
inline void transpose_stages(Vector<A>* rows) {
  constexpr int n = kLanes<A>;
  if constexpr (Step < n) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      if (!(i & Step)) exchange<Step, A>(rows[i], rows[i + Step], std::make_integer_sequence<int, n>{});
    transpose_stages<2 * Step, A>(rows);
  }
}

}  // namespace detail

// rows[i][j] becomes rows[j][i]; as many rows as lanes.
template <class A>
inline void transpose(Vector<A>* rows) {
  detail::transpose_stages<1, A>(rows);
}

// ---- exponential ---------------------------------------------------------------------------------------------------

// exp(x) for x <= 88, per lane. Relative error at most 1e-7 (tests/native/core_driver.cpp) where the result is at least
// 1.7e-38; 0 below, also for -inf; NaN stays NaN. Method: x = n ln 2 + r with |r| <= ln 2 / 2, and the polynomial of
// degree 7 of Cephes (Moshier, expf) for exp(r).
inline Vector<float> exp(Vector<float> x) {
  const Vector<float> shifter = broadcast(12582912.0f);  // 1.5 * 2^23: rounds to an integer, kept in the low bits
  const Vector<float> shifted = x * 1.44269504088896341f + shifter, n = shifted - shifter;
  const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector<float> p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const detail::WordBits scaled = bits_as<detail::WordBits>(p) +
                                  (bits_as<detail::WordBits>(shifted) << 23);
  const detail::Words keep = x >= -87.0f, is_nan = x != x;
  const detail::Words bits = (keep & bits_as<detail::Words>(scaled)) |
                             (is_nan & bits_as<detail::Words>(x));
  return bits_as<Vector<float>>(bits);
}

inline Vector<double> exp(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}

}  // namespace edgekit::simd

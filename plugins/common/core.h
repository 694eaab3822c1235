// The numerics that every build of an operator shares: nvcc for the GPU, the host compiler for ONNX Runtime on the CPU
// and for running the CUDA source on the CPU in tests. Header only, C++17, no dependency.
//
//   storage types    float16, bfloat16: 16 bits each, to_accum() / from_accum()
//   accumulation     accum_t<T>: float, or double for double
//   softmax          SoftmaxState: running maximum and sum, guarded where nothing was visible yet
//   rotation         rotate_pair(): half-split rotary embedding of one pair
//   attention rule   slot_visible(), position_of()
//   factor scores    factor_score(): one head's score from <B_Q, B_K>, A_Q and A_K
//   cache rule       cache_rule(): grow, in place, or an error
//   split-M          split_count(), split_begin(): which slots a split attends to
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define EDGEKIT_HD __host__ __device__ inline
#else
#define EDGEKIT_HD inline
#endif

namespace edgekit {

// ---- storage types ---------------------------------------------------------------------------------------------------

struct float16 {
  std::uint16_t bits;
};

struct bfloat16 {
  std::uint16_t bits;
};

namespace detail {

EDGEKIT_HD std::uint32_t bits_of(float x) {
  std::uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}

EDGEKIT_HD float float_of(std::uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

}  // namespace detail

EDGEKIT_HD float to_accum(float x) { return x; }
EDGEKIT_HD double to_accum(double x) { return x; }

EDGEKIT_HD float to_accum(bfloat16 x) { return detail::float_of(static_cast<std::uint32_t>(x.bits) << 16); }

EDGEKIT_HD float to_accum(float16 x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  // The exponent is moved from bias 15 to 127; a multiplication by 2^-14 normalises subnormal numbers exactly.
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return detail::float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x0400u) {
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // units of 2^-24
    return sign ? -value : value;
  }
  return detail::float_of(sign | ((magnitude << 13) + (112u << 23)));
#endif
}

// Round to nearest, ties to even; NaN stays NaN; float16 overflows to infinity.
template <class T>
EDGEKIT_HD T from_accum(double x) = delete;

template <class T>
EDGEKIT_HD T from_accum(float x);

template <>
EDGEKIT_HD float from_accum<float>(float x) {
  return x;
}

template <>
EDGEKIT_HD double from_accum<double>(double x) {
  return x;
}

template <>
EDGEKIT_HD bfloat16 from_accum<bfloat16>(float x) {
#ifdef __CUDA_ARCH__
  return bfloat16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const std::uint32_t u = detail::bits_of(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bfloat16{static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return bfloat16{static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
#endif
}

template <>
EDGEKIT_HD float16 from_accum<float16>(float x) {
#ifdef __CUDA_ARCH__
  return float16{__half_as_ushort(__float2half_rn(x))};
#else
  const std::uint32_t u = detail::bits_of(x), magnitude = u & 0x7fffffffu;
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  std::uint32_t h;
  if (magnitude > 0x7f800000u) {
    h = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    h = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the value in units of 2^-24, rounded, in the low bits of the sum.
    h = detail::bits_of(detail::float_of(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    h = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return float16{static_cast<std::uint16_t>(sign | h)};
#endif
}

template <class T>
struct accum {
  using type = float;
};
template <>
struct accum<double> {
  using type = double;
};
// The type in which T is multiplied and summed.
template <class T>
using accum_t = typename accum<T>::type;

// ---- online softmax --------------------------------------------------------------------------------------------------

template <class A>
EDGEKIT_HD A minus_infinity() {
  return static_cast<A>(-INFINITY);
}

// Factor for sums that were taken relative to `from` when they become relative to `to` >= from. Where nothing was
// visible yet `from` is -inf and the sums are 0: exp(-inf - -inf) would be NaN, so the factor is 0 then.
template <class A>
EDGEKIT_HD A softmax_rescale(A from, A to) {
  return from == minus_infinity<A>() ? A(0) : static_cast<A>(exp(from - to));
}

// max = largest score seen, sum = sum of exp(score - max). Nothing seen: max = -inf, sum = 0.
template <class A>
struct SoftmaxState {
  A max = minus_infinity<A>();
  A sum = A(0);

  // Take in a block whose scores have maximum `block_max`. Returns the factor for what was accumulated before; the
  // block's own weights are softmax_rescale(score, state.max) and have to be added to `sum`.
  EDGEKIT_HD A extend(A block_max) {
    // Not fmax: it would hide a NaN score.
    const A next = block_max > max || block_max != block_max ? block_max : max;
    const A factor = softmax_rescale(max, next);
    max = next;
    sum *= factor;
    return factor;
  }
};

// Merge of two partial results by log-sum-exp: returns the factor for the left accumulator and writes the right one's.
template <class A>
EDGEKIT_HD A softmax_merge(SoftmaxState<A>& left, const SoftmaxState<A>& right, A& right_factor) {
  const A left_factor = left.extend(right.max);
  right_factor = softmax_rescale(right.max, left.max);
  left.sum += right.sum * right_factor;
  return left_factor;
}

// ---- rotation and masking --------------------------------------------------------------------------------------------

// (x1, x2) -> (x1 c - x2 s, x2 c + x1 s)
template <class A>
EDGEKIT_HD void rotate_pair(A& x1, A& x2, A c, A s) {
  const A y1 = x1 * c - x2 * s;
  x2 = x2 * c + x1 * s;
  x1 = y1;
}

// Whether the query in slot i sees slot j: not later, and either a real token or the query's own slot.
EDGEKIT_HD bool slot_visible(const std::int64_t* mask_row, int i, int j) {
  return j < i ? mask_row[j] != 0 : j == i;
}

// Row of cos and sin, given how many real tokens the slots 0..i hold, slot i included.
EDGEKIT_HD int position_of(int real_up_to_and_with) { return real_up_to_and_with > 0 ? real_up_to_and_with - 1 : 0; }

// ---- scores from factors ---------------------------------------------------------------------------------------------

// sum_{r,s} a_q[r] a_k[s] p[r,s] for one head and slot, where p[r,s] = <B_Q[r], B_K[s]>. The steps are in elements.
template <class A, class TQ, class TK>
EDGEKIT_HD A factor_score(const A* p, int p_step_r, int p_step_s, const TQ* a_q, std::ptrdiff_t a_q_step, int rank_q,
                          const TK* a_k, std::ptrdiff_t a_k_step, int rank_k) {
  A score = A(0);
  for (int s = 0; s < rank_k; ++s) {
    A row = A(0);
    for (int r = 0; r < rank_q; ++r) row += static_cast<A>(to_accum(a_q[r * a_q_step])) * p[r * p_step_r + s * p_step_s];
    score += row * static_cast<A>(to_accum(a_k[s * a_k_step]));
  }
  return score;
}

// ---- cache and split rules -------------------------------------------------------------------------------------------

enum class CacheRule { grow, in_place, invalid };

// past: slots of the past tensor; total: T, slots of the attention mask; fresh: S, new tokens.
EDGEKIT_HD CacheRule cache_rule(std::int64_t past, std::int64_t total, std::int64_t fresh) {
  if (fresh < 0 || fresh > total) return CacheRule::invalid;
  if (past == total - fresh && fresh > 0) return CacheRule::grow;
  return past >= total ? CacheRule::in_place : CacheRule::invalid;
}

EDGEKIT_HD int ceil_div(int a, int b) { return (a + b - 1) / b; }

// First slot of split `index` when `slots` slots are cut into `splits` parts at multiples of `unit`. Parts differ by at
// most one unit; split_begin(..., splits) == slots; a part may be empty where there are more parts than units.
EDGEKIT_HD int split_begin(int slots, int splits, int unit, int index) {
  const long long units = ceil_div(slots, unit);
  const long long begin = units * index / splits * unit;
  return begin < slots ? static_cast<int>(begin) : slots;
}

// How many splits fill `target_blocks` blocks when a split costs `base_blocks` blocks and takes `unit` slots or more.
EDGEKIT_HD int split_count(int slots, int unit, int base_blocks, int target_blocks) {
  const int wanted = base_blocks > 0 ? target_blocks / base_blocks : 1, most = ceil_div(slots, unit);
  return wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most;
}

}  // namespace edgekit

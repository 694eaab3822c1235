// What one call of TPAAttention computes, and how the CPU goes about it.
//
// B batch, S new tokens, T slots in use, C slots of the cache, H heads, D key head size, E value head size, R_Q R_K R_V
// ranks, F columns of the rotary table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/panel.h"

namespace edgekit::tpa {

template <class T>
struct Problem {
  int batch, fresh, total, capacity, heads, key_size, value_size, rank_q, rank_k, rank_v, columns;
  bool factored_query, contextual_key, contextual_value;
  // Inputs; a_q is null for a dense query, in which case b_q is [B,S,H,D] and rank_q is unused.
  const T *a_q, *b_q, *static_a_k, *static_a_v, *cos, *sin;
  const std::int64_t *mask, *frequencies;
  // The cache after the new tokens were written; null where the factor is static.
  const T *a_k, *b_k, *a_v, *b_v;
  T* output;
  accum_t<T> scale, value_scale;

  int past() const { return total - fresh; }

  // The rotation at a position: key_size/2 cosines, then as many sines.
  void turn(int position, accum_t<T>* to) const {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(position) * columns;
    for (int j = 0; j < key_size / 2; ++j) {
      to[j] = to_accum(cos[row + frequencies[j]]);
      to[j + key_size / 2] = to_accum(sin[row + frequencies[j]]);
    }
  }
};

// to = factor times the rotated row `from`; 2 * half numbers.
template <class T, class A, class Out>
void rotate_row(const T* __restrict from, const A* __restrict turn, int half, A factor, Out* __restrict to) {
  for (int j = 0; j < half; ++j) {
    A x1 = to_accum(from[j]), x2 = to_accum(from[j + half]);
    rotate_pair<A>(x1, x2, turn[j], turn[j + half]);
    to[j] = from_accum<Out>(x1 * factor);
    to[j + half] = from_accum<Out>(x2 * factor);
  }
}

// The real slots of every sequence, and for every new token how many of them lie in its past, itself included.
struct Visibility {
  std::vector<std::int32_t> slots, seen;
  int total, fresh;

  Visibility(const std::int64_t* mask, int batch, int total_, int fresh_)
      : slots(static_cast<std::size_t>(batch) * total_ + 1),
        seen(static_cast<std::size_t>(batch) * fresh_),
        total(total_),
        fresh(fresh_) {
    for (int b = 0; b < batch; ++b) {
      const std::int64_t* row = mask + static_cast<std::ptrdiff_t>(b) * total;
      std::int32_t* list = slots.data() + static_cast<std::ptrdiff_t>(b) * total;
      int count = 0;
      for (int j = 0; j < total - fresh; ++j) {
        list[count] = j;
        count += row[j] != 0;
      }
      for (int j = total - fresh; j < total; ++j) {
        if (row[j] != 0) list[count++] = j;
        seen[static_cast<std::size_t>(b) * fresh + (j - (total - fresh))] = count;
      }
    }
  }

  const std::int32_t* of(int b) const { return slots.data() + static_cast<std::ptrdiff_t>(b) * total; }
  int count(int b, int token) const { return seen[static_cast<std::size_t>(b) * fresh + token]; }
  // Row of cos and sin.
  int position(int b, int token) const { return position_of(count(b, token)); }
};

// For one rank of a factor, the heads first..last-1 whose weight is not 0.
struct Run {
  int rank, first, last;
};

// All heads for a contextual factor (factor null); else what is left of [R,H] without its zeros.
template <class T>
std::vector<Run> runs_of(const T* factor, int rank, int heads) {
  std::vector<Run> runs;
  for (int s = 0; s < rank; ++s) {
    if (!factor) {
      runs.push_back({s, 0, heads});
      continue;
    }
    for (int h = 0; h < heads; ++h) {
      if (to_accum(factor[s * heads + h]) == 0) continue;
      if (!runs.empty() && runs.back().rank == s && runs.back().last == h)
        ++runs.back().last;
      else
        runs.push_back({s, h, h + 1});
    }
  }
  return runs;
}

enum class KeyOrder {
  factored,     // <B_Q, B_K> once for all heads, then A_Q and A_K
  dense,        // the query of every head with every B_K, then A_K
  materialised  // K of a block of slots, for one head at a time
};
enum class ValueOrder { factored, materialised };

// How the work is cut, and in which order it is contracted. Depends on shapes and static factors alone, so that a
// result does not depend on the number of threads.
template <class T>
struct Plan {
  KeyOrder keys;
  ValueOrder values;
  std::vector<Run> key_runs, value_runs;
  int tile, tiles, group, groups, splits, padded_value;

  explicit Plan(const Problem<T>& p) {
    using A = accum_t<T>;
    key_runs = runs_of(p.contextual_key ? nullptr : p.static_a_k, p.rank_k, p.heads);
    value_runs = runs_of(p.contextual_value ? nullptr : p.static_a_v, p.rank_v, p.heads);
    constexpr int lanes = simd::kLanes<A>;
    padded_value = (p.value_size + lanes - 1) / lanes * lanes;
    tile = p.fresh <= 16 ? std::max(p.fresh, 1) : std::clamp((p.fresh + 3) / 4, 16, 32);
    tiles = (p.fresh + tile - 1) / tile;
    // Accumulators and weights of a task stay within a quarter of a mebibyte.
    const int per_head = tile * (padded_value + panel::kBlock) * static_cast<int>(sizeof(A));
    groups = (p.heads * per_head + (1 << 18) - 1) / (1 << 18);
    group = (p.heads + groups - 1) / groups;
    groups = (p.heads + group - 1) / group;
    splits = split_count(p.total, 4 * panel::kBlock, p.batch * tiles * groups, 16);

    // Multiply-adds per query token and slot. N tokens share what is materialised.
    const double heads = p.heads, size = p.key_size, width = p.value_size, tokens = tile;
    const double key_heads = in_runs(key_runs), value_heads = in_runs(value_runs);
    const double factored = p.factored_query ? p.rank_q * (p.rank_k * size + key_heads) + key_heads : 1e30;
    const double dense = key_heads * (size + 1);
    const double materialised = heads * size + key_heads * size / tokens;
    keys = materialised < std::min(factored, dense) ? KeyOrder::materialised
           : factored < dense                       ? KeyOrder::factored
                                                    : KeyOrder::dense;
    values = heads * width + value_heads * width / tokens < value_heads * (width + 1) ? ValueOrder::materialised
                                                                                      : ValueOrder::factored;
  }

  int tasks(const Problem<T>& p) const { return p.batch * tiles * groups * splits; }

 private:
  static double in_runs(const std::vector<Run>& runs) {
    double total = 0;
    for (const Run& run : runs) total += run.last - run.first;
    return total;
  }
};

}  // namespace edgekit::tpa

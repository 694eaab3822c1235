// edgekit::TPAAttention in CUDA: which kernels run for given sizes, and their launches. See README.md for the method.
#pragma once

#include <algorithm>

#include "kernel_append.cuh"
#include "kernel_decode.cuh"
#include "kernel_merge.cuh"
#include "kernel_prefill.cuh"

namespace edgekit {

constexpr int kDecodeRows = 8;          // up to this many new tokens take the split-M kernel
constexpr int kLeastSlots = 8;          // tiles become so small, where otherwise multiprocessors had nothing to do
constexpr int kBlocksPerProcessor = 4;  // how many decode blocks are resident at the usual sizes
constexpr int kTileRows = 64;           // key or value rows per decode tile, at most, where 4 slots take no more

// Shared memory of a block. Every GPU gives 48 KiB, four blocks of which are resident on an Orin; large ranks and head
// sizes take more, up to what compute capability 12.0 gives. float64 exists on the host only.
template <class T>
constexpr int kSharedUsual = sizeof(T) == 8 ? 96 << 10 : 48 << 10;
template <class T>
constexpr int kSharedMost = sizeof(T) == 8 ? 198 << 10 : 99 << 10;

inline int round_up(int value, int unit) { return ceil_div(value, unit) * unit; }

inline bool aligned_to(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// 8 * HEADS heads per block for HEADS in {2, 4, 6}: the least work, counted in heads, a group costing 8 on top for P.
inline int decode_heads(int heads) {
  int best = 0, least = 0;
  for (int candidate : {6, 4, 2}) {
    const int groups = ceil_div(heads, 8 * candidate), cost = groups * (8 * candidate + 8);
    if (best == 0 || cost < least) best = candidate, least = cost;
  }
  return best;
}

template <class T>
DecodePlan plan_decode(const TpaAttentionParams& p, int heads_per_thread, int lanes) {
  using A = accum_t<T>;
  DecodePlan plan{};
  const int block_heads = 8 * heads_per_thread, columns = lanes * 4;
  plan.head_groups = ceil_div(p.heads, block_heads);
  plan.heads_per_block = ceil_div(p.heads, plan.head_groups);
  plan.column_groups = ceil_div(p.value_size, columns);
  plan.query_rows = round_up(p.factored_query ? p.rank_q : plan.heads_per_block, 4);
  plan.key_columns = round_up(p.key_size, kUnit<T>);
  plan.key_stride = (plan.key_columns / kUnit<T> | 1) * kUnit<T>;  // an odd number of 16 bytes: no bank conflicts
  while (plan.key_stride % 4 != 0) plan.key_stride += kUnit<T>;
  plan.value_stride = columns;
  plan.keys_aligned = p.key_size % kUnit<T> == 0 && aligned_to(p.present_b_k, 16);
  plan.values_aligned = p.value_size % kUnit<T> == 0 && aligned_to(p.present_b_v, 16);
  const int base_blocks = p.batch * p.fresh * plan.head_groups * plan.column_groups;
  for (plan.slots = 32;; plan.slots /= 2) {
    int offset = 0;
    const auto take = [&offset](std::size_t bytes) {
      const int at = offset;
      offset += round_up(static_cast<int>(bytes), 32);
      return at;
    };
    plan.p_stride = p.rank_k * plan.slots + 4;
    take(sizeof(A) * plan.query_rows * plan.key_stride);
    plan.a_q = take(p.factored_query ? sizeof(A) * p.rank_q * block_heads : 0);
    plan.keys = take(sizeof(T) * plan.slots * p.rank_k * plan.key_stride);
    plan.values = take(sizeof(T) * plan.slots * p.rank_v * plan.value_stride);
    plan.weights = take(sizeof(A) * block_heads * (plan.slots + 1));
    // P is read before W is written, and the other way round in the next tile.
    plan.p = plan.w =
        take(sizeof(A) * std::max(plan.query_rows * plan.p_stride, plan.slots * p.rank_v * block_heads));
    plan.state = take(sizeof(A) * 3 * block_heads);
    plan.shared_bytes = offset;
    if (plan.slots == 4) break;
    if (plan.slots * std::max(p.rank_k, p.rank_v) > kTileRows || offset > kSharedUsual<T>) continue;
    // What a block does for a tile, it does one after the other: with few blocks, time is their number of tiles.
    const bool busy = ceil_div(p.total, plan.slots) >= ceil_div(p.multiprocessors, base_blocks);
    if (p.splits > 0 || busy || plan.slots <= kLeastSlots) break;
  }
  plan.unit = plan.slots;
  plan.splits = p.splits > 0 ? p.splits
                             : split_count(p.total, plan.unit, base_blocks, kBlocksPerProcessor * p.multiprocessors);
  plan.splits = std::min(plan.splits, kMaxSplits);
  return plan;
}

// shared_bytes is over kSharedUsual, perhaps over kSharedMost, where nothing smaller is to be had.
struct DecodeChoice {
  DecodePlan plan;
  int heads_per_thread;
  int lanes;
};

template <class T>
DecodeChoice choose_decode(const TpaAttentionParams& p) {
  DecodeChoice choice{{}, decode_heads(p.heads), p.value_size > 64 ? 32 : 16};
  for (;;) {
    choice.plan = plan_decode<T>(p, choice.heads_per_thread, choice.lanes);
    if (choice.plan.shared_bytes <= kSharedUsual<T>) return choice;
    if (choice.heads_per_thread > 2) {
      choice.heads_per_thread -= 2;
    } else if (choice.lanes > 16) {
      choice.lanes = 16;
    } else {
      return choice;
    }
  }
}

struct PrefillChoice {
  PrefillPlan plan;
  int lanes;
};

template <class T>
PrefillChoice choose_prefill(const TpaAttentionParams& p) {
  using A = accum_t<T>;
  PrefillChoice choice{{}, p.value_size > 64 ? 32 : 16};
  for (;; choice.lanes = 16) {
    const int columns = choice.lanes * 4;
    PrefillPlan& plan = choice.plan;
    plan.column_groups = ceil_div(p.value_size, columns);
    plan.query_stride = round_up(p.key_size, 4) + 4;
    plan.keys_by_4 = p.key_size % 4 == 0 && aligned_to(p.present_b_k, 4 * sizeof(T));
    plan.values_by_4 = p.value_size % 4 == 0 && aligned_to(p.present_b_v, 4 * sizeof(T));
    plan.rows = kQueries * plan.query_stride * static_cast<int>(sizeof(A));
    plan.weights = plan.rows + kSlots * (columns + 4) * static_cast<int>(sizeof(A));
    plan.factor = plan.weights + kSlots * (kQueries + 4) * static_cast<int>(sizeof(A));
    plan.shared_bytes = plan.factor + kQueries * static_cast<int>(sizeof(A));
    if (plan.shared_bytes <= kSharedUsual<T> || choice.lanes == 16) return choice;
  }
}

template <class T>
const char* size_problem(const TpaAttentionParams& p) {
  if (p.batch < 1 || p.fresh < 1 || p.heads < 1 || p.value_size < 1 || p.rank_k < 1 || p.rank_v < 1 ||
      (p.factored_query && p.rank_q < 1)) {
    return "an axis of length 0";
  }
  if (p.key_size < 2 || p.key_size % 2 != 0) return "the key head size has to be even";
  if (p.rotary_rows < 1 || p.rotary_columns < 1) return "an empty rotary table";
  const CacheRule rule = cache_rule(p.past_slots, p.total, p.fresh);
  if (rule == CacheRule::invalid) return "the past has neither T - S slots (grow) nor T or more (in place)";
  if (p.present_slots != (rule == CacheRule::grow ? p.total : p.past_slots)) {
    return "the present has neither T slots (grow) nor as many as the past (in place)";
  }
  // Limits of the second and third grid axis.
  if (p.batch > 65535 / kDecodeRows || p.heads * ceil_div(p.value_size, 64) > 65535) return "too large for one launch";
  if (choose_decode<T>(p).plan.shared_bytes > kSharedMost<T> ||
      choose_prefill<T>(p).plan.shared_bytes > kSharedMost<T>) {
    return "a tile of four cache slots does not fit into 99 KiB of shared memory: ranks or head sizes are too large";
  }
  return nullptr;
}

// Rotated query, then partial outputs, then softmax states, all in the accumulation type.
template <class T>
struct Workspace {
  std::size_t partial, states, bytes;

  explicit Workspace(const TpaAttentionParams& p) {
    const std::size_t query_rows = p.factored_query ? p.rank_q : p.heads;
    const std::size_t rows = static_cast<std::size_t>(p.batch) * std::min(p.fresh, kDecodeRows);
    // split_count() never makes more than `target` rows in all, unless there is one split per row.
    const std::size_t target = static_cast<std::size_t>(kBlocksPerProcessor) * std::max(p.multiprocessors, 1);
    const std::size_t split_rows = p.splits > 0 ? rows * p.splits : std::max(rows, target);
    partial = aligned(static_cast<std::size_t>(p.batch) * p.fresh * query_rows * p.key_size);
    states = partial + aligned(split_rows * p.heads * p.value_size);
    bytes = states + aligned(split_rows * p.heads * 2);
  }

  static std::size_t aligned(std::size_t count) { return (count * sizeof(accum_t<T>) + 255) / 256 * 256; }
};

template <class T>
std::size_t workspace_bytes(const TpaAttentionParams& p) {
  return Workspace<T>(p).bytes;
}

template <class T, int HEADS>
void launch_decode(const TpaAttentionParams& p, const DecodeChoice& choice, const accum_t<T>* query,
                   accum_t<T>* partial, accum_t<T>* states, cudaStream_t stream) {
  const DecodePlan plan = choice.plan;
  const dim3 blocks(plan.splits, p.batch * p.fresh, plan.head_groups * plan.column_groups);
  if (choice.lanes == 32) {
    EDGEKIT_LAUNCH((tpa_decode_kernel<T, HEADS, 32>), blocks, 256, plan.shared_bytes, stream, p, plan, query, partial,
                   states);
  } else {
    EDGEKIT_LAUNCH((tpa_decode_kernel<T, HEADS, 16>), blocks, 128, plan.shared_bytes, stream, p, plan, query, partial,
                   states);
  }
}

template <class T>
cudaError_t launch_tpa_attention(const TpaAttentionParams& p, void* workspace, cudaStream_t stream) {
  using A = accum_t<T>;
  const Workspace<T> layout(p);
  A* query = static_cast<A*>(workspace);
  A* partial = reinterpret_cast<A*>(static_cast<char*>(workspace) + layout.partial);
  A* states = reinterpret_cast<A*>(static_cast<char*>(workspace) + layout.states);

  const std::size_t element = sizeof(T);
  const struct {
    void* present;
    const void* past;
    std::size_t row_bytes;
  } caches[] = {{p.present_a_k, p.past_a_k, p.contextual_key ? p.rank_k * p.heads * element : 0},
                {p.present_b_k, p.past_b_k, p.rank_k * p.key_size * element},
                {p.present_a_v, p.past_a_v, p.contextual_value ? p.rank_v * p.heads * element : 0},
                {p.present_b_v, p.past_b_v, p.rank_v * p.value_size * element}};
  for (const auto& cache : caches) {
    if (cache.row_bytes == 0) continue;
    const cudaError_t status =
        copy_past(cache.present, cache.past, p.batch, p.past_slots, p.present_slots, cache.row_bytes, stream);
    if (status != cudaSuccess) return status;
  }
  EDGEKIT_LAUNCH((tpa_append_kernel<T>), dim3(ceil_div(p.fresh, kAppendTokens), p.batch), kAppendThreads,
                 kAppendShared, stream, p, query);

  if (p.fresh > kDecodeRows) {
    const PrefillChoice choice = choose_prefill<T>(p);
    const PrefillPlan plan = choice.plan;
    const dim3 blocks(ceil_div(p.fresh, kQueries), p.heads * plan.column_groups, p.batch);
    if (choice.lanes == 32) {
      EDGEKIT_LAUNCH((tpa_prefill_kernel<T, 32>), blocks, 256, plan.shared_bytes, stream, p, plan, query);
    } else {
      EDGEKIT_LAUNCH((tpa_prefill_kernel<T, 16>), blocks, 128, plan.shared_bytes, stream, p, plan, query);
    }
    return cudaGetLastError();
  }
  const DecodeChoice choice = choose_decode<T>(p);
  if (choice.heads_per_thread == 6) {
    launch_decode<T, 6>(p, choice, query, partial, states, stream);
  } else if (choice.heads_per_thread == 4) {
    launch_decode<T, 4>(p, choice, query, partial, states, stream);
  } else {
    launch_decode<T, 2>(p, choice, query, partial, states, stream);
  }
  if (choice.plan.splits > 1) {
    EDGEKIT_LAUNCH((tpa_merge_kernel<T>), dim3(p.batch * p.fresh, p.heads), kMergeThreads, merge_shared_bytes<A>(),
                   stream, p, choice.plan.splits, partial, states);
  }
  return cudaGetLastError();
}

}  // namespace edgekit

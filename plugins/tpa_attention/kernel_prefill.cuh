// TPAAttention for many query rows: one block takes one head and kQueries query rows and walks over the cache.
//
// The head's key and value rows of one tile, K_h[m] = sum_s A_K[m,s,h] B_K[m,s] and V_h alike, exist in shared memory
// only, shared by all query rows of the block. A score then costs D products instead of R_Q R_K D.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kQueries = 32;  // query rows per block
constexpr int kSlots = 32;    // cache slots per tile

// Where the tiles lie in shared memory, in bytes. Made on the host by plan_prefill(). The query is at 0.
struct PrefillPlan {
  int column_groups;
  int query_stride;  // elements; D rounded up to a whole number of chunks, and 4
  bool keys_by_4, values_by_4;  // rows are aligned to 4 elements
  int rows, weights, factor;
  int shared_bytes;
};

// sum_r a[r] row_r[column .. column+3], for rows that follow each other.
template <class T>
__device__ inline void mix_rows(accum_t<T> (&to)[4], const T* a, int a_step, const T* rows, int rank, int width,
                                int column, bool by_4) {
#pragma unroll
  for (int c = 0; c < 4; ++c) to[c] = accum_t<T>(0);
#pragma unroll 2
  for (int r = 0; r < rank; ++r) {
    accum_t<T> part[4];
    load4<T>(part, rows + static_cast<std::size_t>(r) * width, column, width, by_4);
    const accum_t<T> factor = to_accum(a[static_cast<std::size_t>(r) * a_step]);
#pragma unroll
    for (int c = 0; c < 4; ++c) to[c] += factor * part[c];
  }
}

// Grid: (groups of kQueries query rows, H * column groups, B); LANES * 8 threads, LANES * 4 columns.
template <class T, int LANES>
__global__ void __launch_bounds__(LANES * 8, LANES == 32 ? 2 : 4)
    tpa_prefill_kernel(const TpaAttentionParams p, const PrefillPlan plan, const accum_t<T>* rotated_query) {
  using A = accum_t<T>;
  constexpr int THREADS = LANES * 8, COLUMNS = LANES * 4, STRIDE = COLUMNS + 4;
  constexpr int SCORED = kQueries * 8 / THREADS;  // query rows whose scores a thread computes, for 4 slots each
  constexpr int OWNED = kQueries / 8;             // query rows of a thread's outputs
  EDGEKIT_SHARED_MEMORY(memory);
  A* query = reinterpret_cast<A*>(memory);                   // [kQueries, query_stride]
  A* rows = reinterpret_cast<A*>(memory + plan.rows);        // [kSlots, STRIDE]: K_h, then V_h
  A* weights = reinterpret_cast<A*>(memory + plan.weights);  // [kSlots, kQueries + 4]
  A* factor = reinterpret_cast<A*>(memory + plan.factor);    // [kQueries]

  const int tid = threadIdx.x, batch = blockIdx.z, past = p.total - p.fresh;
  const int head = blockIdx.y % p.heads, first_column = static_cast<int>(blockIdx.y) / p.heads * COLUMNS;
  const int first = blockIdx.x * kQueries;
  const std::int64_t* mask = p.attention_mask + static_cast<std::size_t>(batch) * p.total;
  const std::size_t base = static_cast<std::size_t>(batch) * p.present_slots;
  const T* b_k = static_cast<const T*>(p.present_b_k) + base * p.rank_k * p.key_size;
  const T* b_v = static_cast<const T*>(p.present_b_v) + base * p.rank_v * p.value_size;
  const T* a_k = (p.contextual_key ? static_cast<const T*>(p.present_a_k) + base * p.rank_k * p.heads
                                   : static_cast<const T*>(p.a_k)) + head;
  const T* a_v = (p.contextual_value ? static_cast<const T*>(p.present_a_v) + base * p.rank_v * p.heads
                                     : static_cast<const T*>(p.a_v)) + head;
  const std::size_t a_k_step = p.contextual_key ? p.rank_k * p.heads : 0;
  const std::size_t a_v_step = p.contextual_value ? p.rank_v * p.heads : 0;

  // Q_h, with zeros for rows beyond S and columns beyond D.
  for (int i = tid; i < kQueries * plan.query_stride; i += THREADS) {
    const int n = i / plan.query_stride, d = i % plan.query_stride;
    const std::size_t token = static_cast<std::size_t>(batch) * p.fresh + first + n;
    A value = A(0);
    if (first + n < p.fresh && d < p.key_size) {
      if (p.factored_query) {
        const T* a = static_cast<const T*>(p.a_q) + token * p.rank_q * p.heads + head;
        const A* b = rotated_query + token * p.rank_q * p.key_size + d;
        for (int r = 0; r < p.rank_q; ++r) {
          value += to_accum(a[static_cast<std::size_t>(r) * p.heads]) * b[static_cast<std::size_t>(r) * p.key_size];
        }
      } else {
        value = rotated_query[(token * p.heads + head) * p.key_size + d];
      }
    }
    query[i] = value;
  }

  const int slot_lane = tid % 8, n_scored = tid / 8 * SCORED;  // slots slot_lane + 8 j
  const int lane = tid % LANES, n_owned = tid / LANES * OWNED;
  SoftmaxState<A> state[SCORED];  // the same in all 8 lanes of a query row
  A y[OWNED][4] = {};
  const int queries = p.fresh - first < kQueries ? p.fresh - first : kQueries;
  const int end = past + first + queries;

  for (int tile = 0; tile < end; tile += kSlots) {
    A score[SCORED][4] = {};
    for (int chunk = 0; chunk < p.key_size; chunk += COLUMNS) {
      __syncthreads();  // the previous tile's rows, weights and factors have been read
      for (int m = tid / LANES; m < kSlots; m += 8) {
        A key[4] = {};
        const std::size_t slot = tile + m;
        if (tile + m < end) {
          mix_rows<T>(key, a_k + slot * a_k_step, p.heads, b_k + slot * p.rank_k * p.key_size, p.rank_k, p.key_size,
                      chunk + lane * 4, plan.keys_by_4);
        }
        *reinterpret_cast<Vec<A, 4>*>(rows + m * STRIDE + lane * 4) = Vec<A, 4>{{key[0], key[1], key[2], key[3]}};
      }
      __syncthreads();
      const int width = p.key_size - chunk < COLUMNS ? p.key_size - chunk : COLUMNS;
#pragma unroll 2
      for (int d = 0; d < width; d += 4) {
        Vec<A, 4> k[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          k[j] = *reinterpret_cast<const Vec<A, 4>*>(rows + (slot_lane + 8 * j) * STRIDE + d);
        }
#pragma unroll
        for (int n = 0; n < SCORED; ++n) {
          const Vec<A, 4> q =
              *reinterpret_cast<const Vec<A, 4>*>(query + (n_scored + n) * plan.query_stride + chunk + d);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int c = 0; c < 4; ++c) score[n][j] += q.at[c] * k[j].at[c];
          }
        }
      }
    }

#pragma unroll
    for (int n = 0; n < SCORED; ++n) {
      const int own_slot = past + first + n_scored + n;
      A largest = minus_infinity<A>();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int slot = tile + slot_lane + 8 * j;
        const bool visible = slot < end && slot_visible(mask, own_slot, slot);
        score[n][j] = visible ? score[n][j] * A(p.scale) : minus_infinity<A>();
        largest = score[n][j] > largest ? score[n][j] : largest;
      }
      const A before = state[n].extend(max_of_8(largest));
      A sum = A(0);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        score[n][j] = softmax_rescale(score[n][j], state[n].max);
        sum += score[n][j];
        weights[(slot_lane + 8 * j) * (kQueries + 4) + n_scored + n] = score[n][j];
      }
      state[n].sum += sum_of_8(sum);
      if (slot_lane == 0) factor[n_scored + n] = before;
    }
    EDGEKIT_SEEDED_SYNC();  // the keys have been read
    for (int m = tid / LANES; m < kSlots; m += 8) {
      A value[4] = {};
      const std::size_t slot = tile + m;
      if (tile + m < end && mask[slot] != 0) {  // a weight of 0 would not silence a NaN in a padded slot
        mix_rows<T>(value, a_v + slot * a_v_step, p.heads, b_v + slot * p.rank_v * p.value_size, p.rank_v,
                    p.value_size, first_column + lane * 4, plan.values_by_4);
      }
      *reinterpret_cast<Vec<A, 4>*>(rows + m * STRIDE + lane * 4) =
          Vec<A, 4>{{value[0], value[1], value[2], value[3]}};
    }
    __syncthreads();

#pragma unroll
    for (int n = 0; n < OWNED; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) y[n][c] *= factor[n_owned + n];
    }
#pragma unroll 2
    for (int m = 0; m < kSlots; ++m) {
      const Vec<A, 4> weight = *reinterpret_cast<const Vec<A, 4>*>(weights + m * (kQueries + 4) + n_owned);
      const Vec<A, 4> value = *reinterpret_cast<const Vec<A, 4>*>(rows + m * STRIDE + lane * 4);
#pragma unroll
      for (int n = 0; n < OWNED; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) y[n][c] += weight.at[n] * value.at[c];
      }
    }
    // A padding token still sees its own slot, which was left out above.
#pragma unroll
    for (int n = 0; n < OWNED; ++n) {
      const int own_slot = past + first + n_owned + n;
      if (own_slot < tile || own_slot >= tile + kSlots || own_slot >= end || mask[own_slot] != 0) continue;
      A value[4];
      mix_rows<T>(value, a_v + own_slot * a_v_step, p.heads,
                  b_v + static_cast<std::size_t>(own_slot) * p.rank_v * p.value_size, p.rank_v, p.value_size,
                  first_column + lane * 4, plan.values_by_4);
      const A weight = weights[(own_slot - tile) * (kQueries + 4) + n_owned + n];
#pragma unroll
      for (int c = 0; c < 4; ++c) y[n][c] += weight * value[c];
    }
  }

  __syncthreads();
#pragma unroll
  for (int n = 0; n < SCORED; ++n) {
    if (slot_lane == 0) factor[n_scored + n] = state[n].sum;
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < OWNED; ++n) {
    if (n_owned + n >= queries) continue;
    const std::size_t token = static_cast<std::size_t>(batch) * p.fresh + first + n_owned + n;
    T* out = static_cast<T*>(p.output) + (token * p.heads + head) * p.value_size;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int column = first_column + lane * 4 + c;
      if (column < p.value_size) out[column] = from_accum<T>(y[n][c] / factor[n_owned + n] * A(p.value_scale));
    }
  }
}

}  // namespace edgekit

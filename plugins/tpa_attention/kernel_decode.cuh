// TPAAttention for few query rows: one block takes one query row, a group of heads and a range of the cache ("split-M").
//
// Per tile of cache slots, with nothing of K or V ever materialised:
//   1. P[r,m,s] = <B_Q[r], B_K[m,s]>, once for all heads of the block
//   2. score[h,m] = scale * sum_{r,s} A_Q[r,h] A_K[m,s,h] P[r,m,s]      (dense query: P[h,m,s], no A_Q)
//   3. online softmax over m
//   4. W[m,u,h] = weight[h,m] A_V[m,u,h]
//   5. y[h,:] += sum_{m,u} W[m,u,h] B_V[m,u,:]
// The next tile's keys are copied while 2 to 5 run, its values while 1 to 4 run.
// Splits leave y, not divided, with their softmax state, for kernel_merge.cuh.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

// Sizes of the tiles and where they lie in shared memory, in bytes. Made on the host by plan_decode().
struct DecodePlan {
  int heads_per_block;  // at most 8 * HEADS of the kernel's template
  int head_groups;
  int column_groups;
  int slots;     // per tile, a multiple of 4
  int unit;      // a split takes a multiple of this many slots
  int splits;
  int query_rows;    // R_Q, or the block's heads for a dense query, rounded up to 4
  int key_columns;   // D rounded up to 16 bytes
  int key_stride;    // elements from one key row to the next, and of a query row
  int value_stride;  // elements, of a value row
  int p_stride;      // elements between the query rows of P
  bool keys_aligned, values_aligned;  // 16-byte copies are possible
  int a_q, keys, values, p, weights, w, state;  // offsets; the query is at 0
  int shared_bytes;
};

// Rows of `width` elements into shared rows of `padded` elements (a multiple of 16 bytes), zero-filled. A row that
// `take` refuses becomes zeros, whatever memory holds. It is asked for several rows before any of them is copied, so
// that what it reads is under way at once, and also for rows beyond the last.
template <class T, int THREADS, class Take>
__device__ inline void load_rows(T* to, int stride, const T* from, int from_stride, int rows, int width, int padded,
                                 bool aligned, const Take& take) {
  constexpr int LANES = 8, STEP = THREADS / LANES, AT_ONCE = 4;
#pragma unroll 1
  for (int first = threadIdx.x / LANES; first < rows; first += AT_ONCE * STEP) {
    bool wanted[AT_ONCE];
#pragma unroll
    for (int b = 0; b < AT_ONCE; ++b) wanted[b] = take(first + b * STEP);
#pragma unroll
    for (int b = 0; b < AT_ONCE; ++b) {
      const int row = first + b * STEP;
      if (row >= rows) break;
      const T* source = from + static_cast<std::ptrdiff_t>(row) * from_stride;
      T* target = to + row * stride;
#pragma unroll 1
      for (int column = threadIdx.x % LANES * kUnit<T>; column < padded; column += LANES * kUnit<T>) {
        if (aligned) {
          const bool inside = wanted[b] && column < width;
          copy16_async(target + column, inside ? source + column : from, inside);
        } else {
#pragma unroll
          for (int c = 0; c < kUnit<T>; ++c) {
            target[column + c] = wanted[b] && column + c < width ? source[column + c] : T{};
          }
        }
      }
    }
  }
}

// HEADS heads and 4 columns per thread; LANES threads side by side span LANES * 4 columns, 8 of them 8 * HEADS heads.
template <class T, int HEADS, int LANES>
struct DecodeShape {
  static constexpr int threads = LANES * 8, heads = HEADS * 8, columns = LANES * 4;
};

// Grid: (splits, B * S, head groups * column groups). Template and plan have to agree on the tile sizes.
// partial: [B*S, splits, H, E] and states: [B*S, splits, H, 2], both unused where splits == 1.
template <class T, int HEADS, int LANES>
__global__ void __launch_bounds__(LANES * 8, LANES == 32 ? 2 : 4)
    tpa_decode_kernel(const TpaAttentionParams p, const DecodePlan plan, const accum_t<T>* rotated_query,
                      accum_t<T>* partial, accum_t<T>* states) {
  using A = accum_t<T>;
  using Shape = DecodeShape<T, HEADS, LANES>;
  constexpr int HB = Shape::heads, Q = kUnit<T> < 4 ? kUnit<T> : 4;
  EDGEKIT_SHARED_MEMORY(memory);
  A* query = reinterpret_cast<A*>(memory);                   // [query_rows, key_stride]
  A* a_q = reinterpret_cast<A*>(memory + plan.a_q);          // [R_Q, HB]
  T* keys = reinterpret_cast<T*>(memory + plan.keys);        // [slots * R_K, key_stride]
  T* values = reinterpret_cast<T*>(memory + plan.values);    // [slots * R_V, value_stride]
  A* dots = reinterpret_cast<A*>(memory + plan.p);           // [query_rows, R_K, slots], row step p_stride
  A* weights = reinterpret_cast<A*>(memory + plan.weights);  // [HB, slots + 1]: scores, then exp(score - max)
  A* w = reinterpret_cast<A*>(memory + plan.w);              // [slots * R_V, HB]
  A* factor = reinterpret_cast<A*>(memory + plan.state);     // [HB], of what was accumulated before this tile
  A* sums = factor + HB;                                     // [HB]
  A* maxima = sums + HB;                                     // [HB]

  const int tid = threadIdx.x, row = blockIdx.y, batch = row / p.fresh, past = p.total - p.fresh;
  const int own_slot = past + row % p.fresh;
  const int first_head = static_cast<int>(blockIdx.z) % plan.head_groups * plan.heads_per_block;
  const int heads = p.heads - first_head < plan.heads_per_block ? p.heads - first_head : plan.heads_per_block;
  const int first_column = static_cast<int>(blockIdx.z) / plan.head_groups * Shape::columns;
  const int columns = p.value_size - first_column < Shape::columns ? p.value_size - first_column : Shape::columns;
  const std::int64_t* mask = p.attention_mask + static_cast<std::size_t>(batch) * p.total;
  const std::size_t base = static_cast<std::size_t>(batch) * p.present_slots;
  const T* b_k = static_cast<const T*>(p.present_b_k) + base * p.rank_k * p.key_size;
  const T* b_v = static_cast<const T*>(p.present_b_v) + base * p.rank_v * p.value_size + first_column;
  const T* a_k = p.contextual_key ? static_cast<const T*>(p.present_a_k) + base * p.rank_k * p.heads
                                  : static_cast<const T*>(p.a_k);
  const T* a_v = p.contextual_value ? static_cast<const T*>(p.present_a_v) + base * p.rank_v * p.heads
                                    : static_cast<const T*>(p.a_v);
  const int a_k_step = p.contextual_key ? p.rank_k * p.heads : 0;  // per slot
  const int a_v_step = p.contextual_value ? p.rank_v * p.heads : 0;

  const int begin = split_begin(own_slot + 1, plan.splits, plan.unit, blockIdx.x);
  const int end = split_begin(own_slot + 1, plan.splits, plan.unit, blockIdx.x + 1);
  // Reads the mask without a branch, so that several of these are under way at once: beyond the end the last slot's.
  const auto visible_slot = [&](int slot) {
    const bool real = mask[slot < end ? slot : end - 1] != 0;
    return slot < end && (real || slot == own_slot);  // end <= own_slot + 1
  };
  const auto load_keys = [&](int tile) {
    load_rows<T, Shape::threads>(keys, plan.key_stride, b_k + static_cast<std::size_t>(tile) * p.rank_k * p.key_size,
                                 p.key_size, plan.slots * p.rank_k, p.key_size, plan.key_columns, plan.keys_aligned,
                                 [&](int r) { return r < (end - tile) * p.rank_k; });
    copy_commit();
  };
  const auto load_values = [&](int tile) {
    load_rows<T, Shape::threads>(values, plan.value_stride,
                                 b_v + static_cast<std::size_t>(tile) * p.rank_v * p.value_size, p.value_size,
                                 plan.slots * p.rank_v, columns, Shape::columns, plan.values_aligned,
                                 [&](int r) { return visible_slot(tile + r / p.rank_v); });
    copy_commit();
  };
  if (begin < end) {
    load_keys(begin);
    load_values(begin);
  }

  // The query: rows of this token, padded with zeros to 4 rows and to the key stride.
  const int real_rows = p.factored_query ? p.rank_q : heads;
  const A* source = rotated_query + (p.factored_query ? static_cast<std::size_t>(row) * p.rank_q
                                                      : static_cast<std::size_t>(row) * p.heads + first_head) *
                                        p.key_size;
  for (int i = tid; i < plan.query_rows * plan.key_stride; i += Shape::threads) {
    const int r = i / plan.key_stride, d = i % plan.key_stride;
    query[i] = r < real_rows && d < p.key_size ? source[static_cast<std::size_t>(r) * p.key_size + d] : A(0);
  }
  if (p.factored_query) {
    const T* a = static_cast<const T*>(p.a_q) + static_cast<std::size_t>(row) * p.rank_q * p.heads + first_head;
    for (int i = tid; i < p.rank_q * HB; i += Shape::threads) {
      a_q[i] = i % HB < heads ? A(to_accum(a[i / HB * p.heads + i % HB])) : A(0);
    }
  }
  for (int h = tid; h < HB; h += Shape::threads) sums[h] = A(0), maxima[h] = minus_infinity<A>();

  const int lane = tid % LANES, head0 = tid / LANES * HEADS;
  A y[HEADS][4] = {};
  for (int tile = begin; tile < end; tile += plan.slots) {
    copy_wait<1>();
    __syncthreads();

    // 1. Four query rows per key row and thread, 16 bytes of the key at a time.
    const int key_rows = plan.slots * p.rank_k, row_groups = plan.query_rows / 4;
#pragma unroll 1
    for (int i = tid; i < key_rows * row_groups; i += Shape::threads) {
      const int key = i % key_rows, r0 = i / key_rows * 4;
      const T* k = keys + key * plan.key_stride;
      const A* q = query + r0 * plan.key_stride;
      A dot[4] = {};
#pragma unroll 1
      for (int d = 0; d < p.key_size; d += kUnit<T>) {
        const Vec<T, kUnit<T>> unit = *reinterpret_cast<const Vec<T, kUnit<T>>*>(k + d);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int c = 0; c < kUnit<T>; c += Q) {
            const Vec<A, Q> part = *reinterpret_cast<const Vec<A, Q>*>(q + r * plan.key_stride + d + c);
#pragma unroll
            for (int j = 0; j < Q; ++j) dot[r] += part.at[j] * to_accum(unit.at[c + j]);
          }
        }
      }
      const int at = key % p.rank_k * plan.slots + key / p.rank_k;
#pragma unroll
      for (int r = 0; r < 4; ++r) dots[(r0 + r) * plan.p_stride + at] = dot[r];
    }
    __syncthreads();
    if (tile + plan.slots < end) {
      load_keys(tile + plan.slots);
    } else {
      copy_commit();  // an empty group keeps the count that copy_wait<1> relies on
    }

    // 2. Scores of four slots per thread; neighbouring threads take neighbouring heads. Slots beyond the end read the
    // last one's factors, and are not used: without a branch, loads do not wait for one another.
    const int last = end - 1 - tile;
#pragma unroll 1
    for (int i = tid; i < HB * (plan.slots / 4); i += Shape::threads) {
      const int h = i % HB, m0 = i / HB * 4;
      bool visible[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) visible[j] = visible_slot(tile + m0 + j);
      A score[4] = {};
#pragma unroll 1
      for (int s = 0; h < heads && s < p.rank_k; ++s) {
        const T* a = a_k + static_cast<std::size_t>(tile) * a_k_step + s * p.heads + first_head + h;
        T factors[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) factors[j] = a[(m0 + j < last ? m0 + j : last) * a_k_step];
        A key[4] = {};
        if (p.factored_query) {
#pragma unroll 2
          for (int r = 0; r < p.rank_q; ++r) {
            const Vec<A, 4> dot = *reinterpret_cast<const Vec<A, 4>*>(dots + r * plan.p_stride + s * plan.slots + m0);
#pragma unroll
            for (int j = 0; j < 4; ++j) key[j] += a_q[r * HB + h] * dot.at[j];
          }
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) key[j] = dots[h * plan.p_stride + s * plan.slots + m0 + j];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) score[j] += key[j] * to_accum(factors[j]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weights[h * (plan.slots + 1) + m0 + j] = visible[j] ? score[j] * A(p.scale) : minus_infinity<A>();
      }
    }
    __syncthreads();

    // 3. Eight lanes per head.
#pragma unroll 1
    for (int h = tid / 8; h < HB; h += Shape::threads / 8) {
      A* row_weights = weights + h * (plan.slots + 1);
      A largest = minus_infinity<A>();
#pragma unroll 2
      for (int m = tid % 8; m < plan.slots; m += 8) largest = row_weights[m] > largest ? row_weights[m] : largest;
      SoftmaxState<A> state{maxima[h], sums[h]};
      const A before = state.extend(max_of_8(largest));
      A sum = A(0);
#pragma unroll 2
      for (int m = tid % 8; m < plan.slots; m += 8) {
        const A weight = softmax_rescale(row_weights[m], state.max);
        row_weights[m] = weight;
        sum += weight;
      }
      sum = sum_of_8(sum);
      __syncwarp();  // every lane has read the state
      if (tid % 8 == 0) maxima[h] = state.max, sums[h] = state.sum + sum, factor[h] = before;
    }
    EDGEKIT_SEEDED_SYNC();

    // 4. A weight of 0 does not silence a NaN in A_V: such a factor is not multiplied.
    constexpr int AT_ONCE = 4;
    const T* a = a_v + static_cast<std::size_t>(tile) * a_v_step + first_head;
    const int count = plan.slots * p.rank_v * HB;
#pragma unroll 1
    for (int first = tid; first < count; first += AT_ONCE * Shape::threads) {
      T loaded[AT_ONCE];
#pragma unroll
      for (int b = 0; b < AT_ONCE; ++b) {
        const int i = first + b * Shape::threads, h = i % HB, m = i / HB / p.rank_v, u = i / HB % p.rank_v;
        loaded[b] = a[(m < last ? m : last) * a_v_step + u * p.heads + (h < heads ? h : 0)];
      }
#pragma unroll
      for (int b = 0; b < AT_ONCE; ++b) {
        const int i = first + b * Shape::threads, h = i % HB, m = i / HB / p.rank_v;
        if (i >= count) break;
        const A weight = weights[h * (plan.slots + 1) + m];
        w[i] = h < heads && weight != A(0) ? weight * to_accum(loaded[b]) : A(0);
      }
    }
    copy_wait<1>();
    __syncthreads();

    // 5.
#pragma unroll
    for (int i = 0; i < HEADS; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) y[i][c] *= factor[head0 + i];
    }
    const int taken = end - tile < plan.slots ? end - tile : plan.slots;
#pragma unroll 2
    for (int k = 0; k < taken * p.rank_v; ++k) {
      const Vec<T, 4> value = *reinterpret_cast<const Vec<T, 4>*>(values + k * plan.value_stride + lane * 4);
      A v[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) v[c] = to_accum(value.at[c]);
#pragma unroll
      for (int i = 0; i < HEADS; i += 2) {
        const Vec<A, 2> two = *reinterpret_cast<const Vec<A, 2>*>(w + k * HB + head0 + i);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          y[i][c] += two.at[0] * v[c];
          y[i + 1][c] += two.at[1] * v[c];
        }
      }
    }
    __syncthreads();
    if (tile + plan.slots < end) {
      load_values(tile + plan.slots);
    } else {
      copy_commit();
    }
  }
  copy_wait<0>();
  __syncthreads();  // sums and maxima, where the loop did not run

#pragma unroll
  for (int i = 0; i < HEADS; ++i) {
    if (head0 + i >= heads) continue;
    const std::size_t head = first_head + head0 + i;
    if (plan.splits == 1) {
      T* out = static_cast<T*>(p.output) + (static_cast<std::size_t>(row) * p.heads + head) * p.value_size;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (lane * 4 + c < columns) {
          out[first_column + lane * 4 + c] = from_accum<T>(y[i][c] / sums[head0 + i] * A(p.value_scale));
        }
      }
    } else {
      const std::size_t at = (static_cast<std::size_t>(row) * plan.splits + blockIdx.x) * p.heads + head;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (lane * 4 + c < columns) partial[at * p.value_size + first_column + lane * 4 + c] = y[i][c];
      }
      if (lane == 0 && first_column == 0) states[at * 2] = maxima[head0 + i], states[at * 2 + 1] = sums[head0 + i];
    }
  }
}

}  // namespace edgekit

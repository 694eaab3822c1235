// One task of attention over a factor cache: a tile of query tokens and a group of heads of one sequence, over a range
// of its real slots, in blocks with online softmax (TPA, arXiv 2501.06425; the recurrence of FlashAttention, arXiv
// 2205.14135).
//
// Only real slots are visited: a block takes the next panel::kBlock entries of the list of real slots, so that padding
// and unused memory are never read. A padded query token also sees its own slot, which is added as a block of one.
#pragma once

#include <iterator>
#include <type_traits>

#include "../common/arena.h"
#include "cpu_problem.h"

namespace edgekit::tpa {

// What a task hands over where slots are split: per row (token of the tile, head of the group) an accumulator of
// padded_value numbers relative to `state`.
template <class A>
struct Partial {
  A* sums;
  SoftmaxState<A>* states;
};

template <class T>
class Task {
  using A = accum_t<T>;
  static constexpr int kBlock = panel::kBlock;

 public:
  // b sequence, tile of queries, group of heads, split of slots.
  Task(const Problem<T>& problem, const Plan<T>& plan, const Visibility& visibility, int b, int tile, int group,
       int split)
      : p(problem), plan(plan), visibility(visibility), b(b), split(split) {
    first_token = tile * plan.tile;
    tokens = std::min(plan.tile, p.fresh - first_token);
    first_head = group * plan.group;
    heads = std::min(plan.group, p.heads - first_head);
  }

  void run(Arena& arena, Partial<A> out) {
    take_memory(arena);
    sums = out.sums;
    states = out.states;
    std::fill(sums, sums + static_cast<std::ptrdiff_t>(tokens) * heads * plan.padded_value, A(0));
    std::fill(states, states + tokens * heads, SoftmaxState<A>{});
    prepare_queries();
    const std::int32_t* slots = visibility.of(b);
    const int end_slots = visibility.count(b, first_token + tokens - 1);
    const int begin = split_begin(end_slots, plan.splits, kBlock, split);
    const int end = split_begin(end_slots, plan.splits, kBlock, split + 1);
    int first = 0;
    for (int k = begin; k < end; k += kBlock) {
      const int count = std::min(kBlock, end - k);
      while (visibility.count(b, first_token + first) <= k) ++first;
      for (int i = first; i < tokens; ++i)
        visible[i] = std::clamp(visibility.count(b, first_token + i) - k, 0, count);
      if (p.contextual_value) fetch(p.a_v, p.rank_v * p.heads, slots + k, count);
      fetch(p.b_v, p.rank_v * p.value_size, slots + k, count);
      block(slots + k, count, first, tokens, std::min(kBlock, end - k - count));
    }
    if (split == 0) own_slots_of_padding();
  }

  // Writes the output rows of this task, given the merged sums.
  void finish(const A* from, const SoftmaxState<A>* merged) const {
    for (int i = 0; i < tokens; ++i)
      for (int h = 0; h < heads; ++h) {
        const A* row = from + static_cast<std::ptrdiff_t>(i * heads + h) * plan.padded_value;
        const A factor = p.value_scale / merged[i * heads + h].sum;
        T* to = p.output + (token_index(i) * p.heads + first_head + h) * p.value_size;
        for (int e = 0; e < p.value_size; ++e) to[e] = from_accum<T>(row[e] * factor);
      }
  }

  int rows() const { return tokens * heads; }

 private:
  std::ptrdiff_t token_index(int i) const { return static_cast<std::ptrdiff_t>(b) * p.fresh + first_token + i; }
  // Rows of the query matrix that one token has: its factors, or its heads.
  int query_rows() const { return plan.keys == KeyOrder::factored ? p.rank_q : heads; }
  bool values_packed() const {
    return !std::is_same<T, A>::value || p.value_size != plan.padded_value || plan.values == ValueOrder::materialised;
  }

  void take_memory(Arena& arena) {
    const std::size_t n = static_cast<std::size_t>(plan.tile), g = static_cast<std::size_t>(plan.group);
    const std::size_t d = static_cast<std::size_t>(p.key_size), w = static_cast<std::size_t>(plan.padded_value);
    const std::size_t rk = static_cast<std::size_t>(p.rank_k), rv = static_cast<std::size_t>(p.rank_v);
    const std::size_t rq = p.factored_query ? static_cast<std::size_t>(p.rank_q) : 0;
    const bool factored = plan.keys == KeyOrder::factored;
    const std::size_t sizes[] = {n * std::max(rq, g) * d,
                                 std::max(rq, std::size_t{1}) * d,
                                 n * g * std::max(rq, std::size_t{1}),
                                 rk * d * kBlock,
                                 plan.keys == KeyOrder::materialised ? d * kBlock : 0,
                                 factored ? n * rq * kBlock : 0,
                                 p.contextual_key ? rk * g * kBlock : rk * g,
                                 p.contextual_value ? rv * g * kBlock : rv * g,
                                 n * g * kBlock,
                                 g * kBlock,
                                 values_packed() ? kBlock * rv * w : 0,
                                 plan.values == ValueOrder::materialised ? kBlock * w : 0,
                                 d};
    A** pointers[] = {&query, &rotated, &query_factors, &keys, &key_head, &products, &key_factors, &value_factors,
                      &weights, &weighted, &packed_values, &value_head, &turns};
    std::size_t bytes = Arena::bytes<const A*>(kBlock) + 4 * Arena::bytes<const T*>(kBlock) + Arena::bytes<int>(n);
    for (std::size_t size : sizes) bytes += Arena::bytes<A>(size);
    arena.reset(bytes);
    for (std::size_t i = 0; i < std::size(sizes); ++i) *pointers[i] = arena.take<A>(sizes[i]);
    value_rows = arena.take<const A*>(kBlock);
    cache_rows = arena.take<const T*>(kBlock);
    visible = arena.take<int>(n);
    if (!p.contextual_key) copy_static(p.static_a_k, p.rank_k, key_factors);
    if (!p.contextual_value) copy_static(p.static_a_v, p.rank_v, value_factors);
  }

  void copy_static(const T* from, int rank, A* to) const {
    for (int s = 0; s < rank; ++s)
      for (int h = 0; h < heads; ++h) to[s * heads + h] = static_cast<A>(to_accum(from[s * p.heads + first_head + h]));
  }

  // query: [tokens, R_Q, D] where the products with B_K come first, else [tokens, heads, D]; rotated and scaled.
  void prepare_queries() {
    const int d = p.key_size, r = p.rank_q;
    for (int i = 0; i < tokens; ++i) {
      A* to = query + static_cast<std::ptrdiff_t>(i) * query_rows() * d;
      if (!p.factored_query) {
        rotate_rows(p.b_q + (token_index(i) * p.heads + first_head) * d, heads, i, to);
        continue;
      }
      A* factors = query_factors + static_cast<std::ptrdiff_t>(i) * heads * r;
      const T* a = p.a_q + token_index(i) * r * p.heads + first_head;
      for (int h = 0; h < heads; ++h)
        for (int s = 0; s < r; ++s) factors[h * r + s] = static_cast<A>(to_accum(a[s * p.heads + h]));
      const bool factored = plan.keys == KeyOrder::factored;
      rotate_rows(p.b_q + token_index(i) * r * d, r, i, factored ? to : rotated);
      if (factored) continue;
      std::fill(to, to + static_cast<std::ptrdiff_t>(heads) * d, A(0));
      for (int h = 0; h < heads; ++h)
        for (int s = 0; s < r; ++s)
          for (int j = 0; j < d; ++j) to[h * d + j] += factors[h * r + s] * rotated[s * d + j];
    }
  }

  void rotate_rows(const T* from, int rows, int i, A* to) {
    p.turn(visibility.position(b, first_token + i), turns);
    for (int r = 0; r < rows; ++r, from += p.key_size, to += p.key_size)
      rotate_row(from, turns, p.key_size / 2, p.scale, to);
  }

  void own_slots_of_padding() {
    for (int i = 0; i < tokens; ++i) {
      const std::int32_t slot = p.past() + first_token + i;
      if (p.mask[static_cast<std::ptrdiff_t>(b) * p.total + slot] != 0) continue;
      visible[i] = 1;
      block(&slot, 1, i, i + 1);
    }
  }

  const T** rows_of(const T* cache, const std::int32_t* slots, int count, std::ptrdiff_t row) {
    for (int m = 0; m < count; ++m)
      cache_rows[m] = cache + (static_cast<std::ptrdiff_t>(b) * p.capacity + slots[m]) * row;
    return cache_rows;
  }

  // Asks for the memory from the first of these slots to the last, unless much of that is padding.
  void fetch(const T* cache, int row, const std::int32_t* slots, int count) const {
    if (slots[count - 1] - slots[0] > 2 * kBlock) return;
    constexpr std::ptrdiff_t line = 64 / sizeof(T);
    const std::ptrdiff_t base = static_cast<std::ptrdiff_t>(b) * p.capacity;
    const T* end = cache + (base + slots[count - 1] + 1) * row;
    for (const T* from = cache + (base + slots[0]) * row; from < end; from += line) __builtin_prefetch(from, 0, 2);
  }

  const T* end_of(const T* cache, std::ptrdiff_t row) const {
    return cache + static_cast<std::ptrdiff_t>(p.batch) * p.capacity * row;
  }

  // Adds `count` slots to the rows of tokens first..last-1 of the tile; token i sees the first visible[i] of them.
  // The `next` slots behind them are fetched into the cache ahead of their turn.
  void block(const std::int32_t* slots, int count, int first, int last, int next = 0) {
    const std::ptrdiff_t d = p.key_size;
    const T** rows = rows_of(p.b_k, slots, count, p.rank_k * d);
    const T* end = end_of(p.b_k, p.rank_k * d);
    for (int s = 0; s < p.rank_k; ++s)
      panel::transpose_into(keys + s * d * kBlock, rows, end, s * d, p.key_size, count);
    if (p.contextual_key) transpose_factor(p.a_k, p.rank_k, slots, count, key_factors);
    score(count, first, last);

    for (int i = first; i < last; ++i)
      for (int h = 0; h < heads; ++h) {
        const int row = i * heads + h;
        const A factor = panel::softmax(weights + row * kBlock, visible[i], count, states[row]);
        if (factor == A(1)) continue;
        A* sum = sums + static_cast<std::ptrdiff_t>(row) * plan.padded_value;
        for (int e = 0; e < plan.padded_value; ++e) sum[e] *= factor;
      }

    if (p.contextual_value) transpose_factor(p.a_v, p.rank_v, slots, count, value_factors);
    if (next > 0) {
      fetch(p.b_k, p.rank_k * p.key_size, slots + count, next);
      if (p.contextual_key) fetch(p.a_k, p.rank_k * p.heads, slots + count, next);
    }
    add_values(slots, count, first, last);
  }

  void transpose_factor(const T* cache, int rank, const std::int32_t* slots, int count, A* to) {
    const T** rows = rows_of(cache, slots, count, static_cast<std::ptrdiff_t>(rank) * p.heads);
    for (int s = 0; s < rank; ++s)
      panel::transpose_into(to + static_cast<std::ptrdiff_t>(s) * heads * kBlock, rows,
                            end_of(cache, static_cast<std::ptrdiff_t>(rank) * p.heads),
                            static_cast<std::ptrdiff_t>(s) * p.heads + first_head, heads, count);
  }

  // Calls body(rank, first head of the group, heads) for what the runs have in common with the group.
  template <class Body>
  void in_group(const std::vector<Run>& runs, const Body& body) const {
    for (const Run& run : runs) {
      const int from = std::max(run.first, first_head) - first_head;
      const int to = std::min(run.last, first_head + heads) - first_head;
      if (from < to) body(run.rank, from, to - from);
    }
  }

  panel::Epilogue<A> key_epilogue(int s, int h) const {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(s) * heads + h;
    return p.contextual_key ? panel::Epilogue<A>{key_factors + row * kBlock, nullptr, true}
                            : panel::Epilogue<A>{nullptr, key_factors + row, true};
  }

  // weights[token, head, slot] = scores, by the planned order.
  void score(int count, int first, int last) {
    const int d = p.key_size;
    const std::ptrdiff_t tile_rows = static_cast<std::ptrdiff_t>(heads) * kBlock;
    if (plan.keys == KeyOrder::materialised) {
      const int columns = panel::padded<A>(count);
      for (int h = 0; h < heads; ++h) {
        materialise_key(h, columns);
        panel::scores(last - first, count, query + (static_cast<std::ptrdiff_t>(first) * heads + h) * d, heads * d, d,
                      key_head, weights + first * tile_rows + h * kBlock, tile_rows);
      }
      return;
    }
    std::fill(weights + first * tile_rows, weights + last * tile_rows, A(0));
    if (plan.keys == KeyOrder::dense) {
      in_group(plan.key_runs, [&](int s, int h, int many) {
        for (int i = first; i < last; ++i)
          panel::scores(many, count, query + (static_cast<std::ptrdiff_t>(i) * heads + h) * d, d, d,
                        keys + static_cast<std::ptrdiff_t>(s) * d * kBlock, weights + i * tile_rows + h * kBlock,
                        kBlock, key_epilogue(s, h));
      });
      return;
    }
    const int r = p.rank_q;
    int done = -1;
    in_group(plan.key_runs, [&](int s, int h, int many) {
      if (s != done)
        panel::scores((last - first) * r, count, query + static_cast<std::ptrdiff_t>(first) * r * d, d, d,
                      keys + static_cast<std::ptrdiff_t>(s) * d * kBlock,
                      products + static_cast<std::ptrdiff_t>(first) * r * kBlock, kBlock);
      done = s;
      for (int i = first; i < last; ++i)
        panel::scores(many, count, query_factors + (static_cast<std::ptrdiff_t>(i) * heads + h) * r, r, r,
                      products + static_cast<std::ptrdiff_t>(i) * r * kBlock, weights + i * tile_rows + h * kBlock,
                      kBlock, key_epilogue(s, h));
    });
  }

  // key_head[d][slot] = sum_s A_K[slot, s, h] B_K[slot, s, d]
  void materialise_key(int h, int columns) {
    const int d = p.key_size;
    std::fill(key_head, key_head + static_cast<std::ptrdiff_t>(d) * kBlock, A(0));
    in_group(plan.key_runs, [&](int s, int from, int many) {
      if (h < from || h >= from + many) return;
      const A* factor = key_factors + static_cast<std::ptrdiff_t>(s * heads + h) * (p.contextual_key ? kBlock : 1);
      const A* key = keys + static_cast<std::ptrdiff_t>(s) * d * kBlock;
      for (int j = 0; j < d; ++j, key += kBlock) {
        A* to = key_head + j * kBlock;
        if (p.contextual_key)
          for (int m = 0; m < columns; ++m) to[m] += factor[m] * key[m];
        else
          for (int m = 0; m < columns; ++m) to[m] += *factor * key[m];
      }
    });
  }

  // sums[token, head] += weights times values.
  void add_values(const std::int32_t* slots, int count, int first, int last) {
    const int width = plan.padded_value;
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(p.rank_v) * p.value_size;
    const std::ptrdiff_t tile_rows = static_cast<std::ptrdiff_t>(heads) * kBlock;
    std::ptrdiff_t rank_step = p.value_size;
    const T** rows = rows_of(p.b_v, slots, count, row);
    if (values_packed()) {
      rank_step = width;
      pack_values(rows, count);
    } else {
      for (int m = 0; m < count; ++m) value_rows[m] = reinterpret_cast<const A*>(rows[m]);  // T is A here
    }
    if (plan.values == ValueOrder::materialised) {
      for (int h = 0; h < heads; ++h) {
        materialise_value(h, count);
        for (int m = 0; m < count; ++m) value_rows[m] = value_head + m * width;
        panel::values(last - first, count, weights + first * tile_rows + h * kBlock, tile_rows, value_rows, 0, width,
                      sums + (static_cast<std::ptrdiff_t>(first) * heads + h) * width, heads * width);
      }
      return;
    }
    in_group(plan.value_runs, [&](int u, int h, int many) {
      for (int i = first; i < last; ++i) {
        weigh(weights + i * tile_rows + h * kBlock, u, h, many, count);
        panel::values(many, count, weighted, kBlock, value_rows, u * rank_step, width,
                      sums + (static_cast<std::ptrdiff_t>(i) * heads + h) * width, width);
      }
    });
  }

  // weighted[head][slot] = weight * A_V[slot, u, head]
  void weigh(const A* from, int u, int h, int many, int count) {
    const A* factor = value_factors + static_cast<std::ptrdiff_t>(u * heads + h) * (p.contextual_value ? kBlock : 1);
    for (int k = 0; k < many; ++k)
      for (int m = 0; m < count; ++m)
        weighted[k * kBlock + m] = from[k * kBlock + m] * (p.contextual_value ? factor[k * kBlock + m] : factor[k]);
  }

  // packed_values: [slot, R_V, padded_value] in the accumulation type, zeros behind E.
  void pack_values(const T** rows, int count) {
    constexpr int lanes = simd::kLanes<A>;
    const int width = plan.padded_value, size = p.value_size;
    A* to = packed_values;
    for (int m = 0; m < count; ++m) {
      value_rows[m] = to;
      const T* from = rows[m];
      for (int u = 0; u < p.rank_v; ++u, from += size, to += width) {
        int e = 0;
        for (; e + lanes <= size; e += lanes) simd::store(to + e, simd::load_accum(from + e));
        if (e < size) simd::store(to + e, simd::load_accum_part(from + e, size - e));
      }
    }
  }

  // value_head[slot][e] = sum_u A_V[slot, u, h] B_V[slot, u, e]
  void materialise_value(int h, int count) {
    const int width = plan.padded_value;
    std::fill(value_head, value_head + static_cast<std::ptrdiff_t>(count) * width, A(0));
    in_group(plan.value_runs, [&](int u, int from, int many) {
      if (h < from || h >= from + many) return;
      const A* factor = value_factors + static_cast<std::ptrdiff_t>(u * heads + h) * (p.contextual_value ? kBlock : 1);
      for (int m = 0; m < count; ++m) {
        const A* value = packed_values + (static_cast<std::ptrdiff_t>(m) * p.rank_v + u) * width;
        const A weight = p.contextual_value ? factor[m] : *factor;
        A* to = value_head + static_cast<std::ptrdiff_t>(m) * width;
        for (int e = 0; e < width; ++e) to[e] += weight * value[e];
      }
    });
  }

  const Problem<T>& p;
  const Plan<T>& plan;
  const Visibility& visibility;
  int b, split, first_token, tokens, first_head, heads;
  A *query, *rotated, *query_factors, *keys, *key_head, *products, *key_factors, *value_factors, *weights, *weighted,
      *packed_values, *value_head, *turns, *sums;
  SoftmaxState<A>* states;
  const A** value_rows;
  const T** cache_rows;
  int* visible;
};

}  // namespace edgekit::tpa

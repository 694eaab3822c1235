// Attention over a factor cache on the CPU, cut into tasks that run in any order on any number of threads, and merged
// by log-sum-exp where the slots of a query are split. Also the rotation of the new keys.
#pragma once

#include "cpu_task.h"

namespace edgekit::tpa {

// Writes the new rows of the key cache: b_k [B,S,R_K,D], rotated by position, into slots T-S..T-1.
template <class T, class Run>
void write_rotated_keys(const Problem<T>& p, const Visibility& visibility, const T* b_k, T* present, const Run& run) {
  using A = accum_t<T>;
  const auto rotate = [&](int b, int token, A* turns) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(p.rank_k) * p.key_size;
    const T* from = b_k + (static_cast<std::ptrdiff_t>(b) * p.fresh + token) * row;
    T* to = present + (static_cast<std::ptrdiff_t>(b) * p.capacity + p.past() + token) * row;
    p.turn(visibility.position(b, token), turns);
    for (int s = 0; s < p.rank_k; ++s)
      rotate_row(from + s * p.key_size, turns, p.key_size / 2, A(1), to + s * p.key_size);
  };
  constexpr int kTokens = 64;
  const int pieces = (p.fresh + kTokens - 1) / kTokens;
  const auto piece = [&](std::size_t i) {
    const int b = static_cast<int>(i) / pieces, first = static_cast<int>(i) % pieces * kTokens;
    std::vector<A> turns(static_cast<std::size_t>(p.key_size));
    for (int token = first; token < std::min(first + kTokens, p.fresh); ++token) rotate(b, token, turns.data());
  };
  const std::size_t count = static_cast<std::size_t>(p.batch) * pieces;
  if (pieces > 1)
    run(count, piece);
  else
    for (std::size_t i = 0; i < count; ++i) piece(i);
}

// Attends: run(count, body) calls body(i) for i < count, possibly on several threads.
template <class T, class Run>
void attend(const Problem<T>& p, const Visibility& visibility, const Run& run) {
  using A = accum_t<T>;
  const Plan<T> plan(p);
  const int groups = p.batch * plan.tiles * plan.groups;
  const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(plan.tile) * plan.group;
  std::vector<A> sums;
  std::vector<SoftmaxState<A>> states;
  if (plan.splits > 1) {
    sums.resize(static_cast<std::size_t>(plan.tasks(p) * rows * plan.padded_value));
    states.resize(static_cast<std::size_t>(plan.tasks(p) * rows));
  }
  const auto task_of = [&](int index, int split) {
    const int group = index % plan.groups, tile = index / plan.groups % plan.tiles;
    // Late tiles see most slots: they come first, so that no thread is left with a long one at the end.
    return Task<T>(p, plan, visibility, index / plan.groups / plan.tiles, plan.tiles - 1 - tile, group, split);
  };
  const auto partial = [&](int index, int split) {
    const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(index) * plan.splits + split) * rows;
    return Partial<A>{sums.data() + at * plan.padded_value, states.data() + at};
  };
  run(static_cast<std::size_t>(plan.tasks(p)), [&](std::size_t i) {
    thread_local Arena arena, results;
    const int index = static_cast<int>(i) / plan.splits, split = static_cast<int>(i) % plan.splits;
    Task<T> task = task_of(index, split);
    if (plan.splits > 1) return task.run(arena, partial(index, split));
    results.reset(Arena::bytes<A>(rows * plan.padded_value) + Arena::bytes<SoftmaxState<A>>(rows));
    const Partial<A> mine{results.take<A>(rows * plan.padded_value), results.take<SoftmaxState<A>>(rows)};
    task.run(arena, mine);
    task.finish(mine.sums, mine.states);
  });
  if (plan.splits == 1) return;
  for (int index = 0; index < groups; ++index) {
    const Partial<A> all = partial(index, 0);
    const Task<T> task = task_of(index, 0);
    for (int split = 1; split < plan.splits; ++split) {
      const Partial<A> next = partial(index, split);
      for (int row = 0; row < task.rows(); ++row) {
        A right;
        const A left = softmax_merge(all.states[row], next.states[row], right);
        A* to = all.sums + static_cast<std::ptrdiff_t>(row) * plan.padded_value;
        const A* from = next.sums + static_cast<std::ptrdiff_t>(row) * plan.padded_value;
        for (int e = 0; e < plan.padded_value; ++e) to[e] = to[e] * left + from[e] * right;
      }
    }
    task.finish(all.sums, all.states);
  }
}

}  // namespace edgekit::tpa

// The cache update: past rows are kept, rows of new tokens written behind them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core.h"

namespace edgekit {

// One cache tensor [B, slots, row]: its rows before and after, and the new rows [B, S, row].
template <class T>
struct CacheUpdate {
  const T* past;
  const T* fresh;  // null where the caller writes the new rows itself
  T* present;
  int past_slots, present_slots;
  std::ptrdiff_t row;
};

// Copies what has to be copied, in pieces that run(count, body) may distribute. Slots in use: T = first + S.
// In place (present is past) only the new rows are written.
template <class T, class Run>
void append(const std::vector<CacheUpdate<T>>& updates, int batch, int first, int new_rows, const Run& run) {
  constexpr std::ptrdiff_t kPiece = 1 << 17;  // bytes; about the time that handing a piece to a thread is worth
  struct Copy {
    const T* from;
    T* to;
    std::ptrdiff_t count;
  };
  std::vector<Copy> copies;
  const auto add = [&](const T* from, T* to, std::ptrdiff_t count) {
    const std::ptrdiff_t piece = kPiece / static_cast<std::ptrdiff_t>(sizeof(T));
    for (std::ptrdiff_t begin = 0; begin < count; begin += piece)
      copies.push_back({from + begin, to + begin, std::min(piece, count - begin)});
  };
  for (const CacheUpdate<T>& u : updates) {
    if (u.present == u.past) continue;
    for (int b = 0; b < batch; ++b)
      add(u.past + static_cast<std::ptrdiff_t>(b) * u.past_slots * u.row,
          u.present + static_cast<std::ptrdiff_t>(b) * u.present_slots * u.row, u.past_slots * u.row);
  }
  const auto copy = [&](std::size_t i) {
    std::memcpy(copies[i].to, copies[i].from, static_cast<std::size_t>(copies[i].count) * sizeof(T));
  };
  if (copies.size() < 4)
    for (std::size_t i = 0; i < copies.size(); ++i) copy(i);
  else
    run(copies.size(), copy);
  for (const CacheUpdate<T>& u : updates) {
    if (!u.fresh) continue;
    for (int b = 0; b < batch; ++b)
      std::memcpy(u.present + (static_cast<std::ptrdiff_t>(b) * u.present_slots + first) * u.row,
                  u.fresh + static_cast<std::ptrdiff_t>(b) * new_rows * u.row,
                  static_cast<std::size_t>(new_rows * u.row) * sizeof(T));
  }
}

}  // namespace edgekit

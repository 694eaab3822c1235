// edgekit::TPAAppend in CUDA: new rows into their slots of the cache. See README.md.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kRowThreads = 256;

// Grid: (groups of kRowThreads words, B). Word: what is copied at once, from 1 to 16 bytes.
template <class Word>
__global__ void __launch_bounds__(kRowThreads) append_rows_kernel(const TpaAppendParams p, std::size_t words) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i >= words) return;
  const std::size_t slot = static_cast<std::size_t>(blockIdx.y) * p.present_slots + (p.total - p.fresh);
  const Word* from = static_cast<const Word*>(p.fresh_rows) + blockIdx.y * words;
  Word* to = reinterpret_cast<Word*>(static_cast<char*>(p.present) + slot * p.row_bytes);
  to[i] = from[i];
}

template <class Word>
void launch_append_rows(const TpaAppendParams& p, cudaStream_t stream) {
  const std::size_t words = p.fresh * p.row_bytes / sizeof(Word);
  const dim3 blocks(static_cast<unsigned>((words + kRowThreads - 1) / kRowThreads), p.batch);
  EDGEKIT_LAUNCH((append_rows_kernel<Word>), blocks, kRowThreads, 0, stream, p, words);
}

}  // namespace edgekit

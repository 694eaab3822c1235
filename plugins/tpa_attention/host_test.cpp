// The CUDA source of TPAAttention compiled for the CPU, as a library that tests call with plain arrays.
//   g++ -std=c++20 -O1 -shared -fPIC -DEDGEKIT_CUDA_ON_HOST host_test.cpp
#include <limits>
#include <vector>

#include "kernel.cuh"
#include "launch.cpp"
#include "test_params.h"

using namespace edgekit;

extern "C" const char* edgekit_tpa_attention_problem(int element, const std::int64_t* sizes) {
  const double scales[2] = {};
  void* const tensors[19] = {};
  return tpa_attention_problem(static_cast<Element>(element), params_of(sizes, scales, tensors));
}

extern "C" std::size_t edgekit_tpa_attention_workspace(int element, const std::int64_t* sizes) {
  const double scales[2] = {};
  void* const tensors[19] = {};
  return tpa_attention_workspace(params_of(sizes, scales, tensors), static_cast<Element>(element));
}

// How many splits the launcher takes; 0 for the prefill kernel.
extern "C" int edgekit_tpa_attention_splits(int element, const std::int64_t* sizes) {
  const double scales[2] = {};
  void* const tensors[19] = {};
  const TpaAttentionParams p = params_of(sizes, scales, tensors);
  return with_element(static_cast<Element>(element), [&](auto zero) {
    return p.fresh > kDecodeRows ? 0 : choose_decode<decltype(zero)>(p).plan.splits;
  });
}

// What one launch takes, as kernel-resources reports it: heads per thread, lanes, slots per tile, heads per block, head
// groups, column groups, bytes of shared memory; then lanes and bytes of shared memory of the prefill kernel.
extern "C" void edgekit_tpa_attention_plan(int element, const std::int64_t* sizes, std::int64_t* found) {
  const double scales[2] = {};
  void* const tensors[19] = {};
  const TpaAttentionParams p = params_of(sizes, scales, tensors);
  with_element(static_cast<Element>(element), [&](auto zero) {
    using T = decltype(zero);
    const DecodeChoice decode = choose_decode<T>(p);
    const PrefillChoice prefill = choose_prefill<T>(p);
    for (int value : {decode.heads_per_thread, decode.lanes, decode.plan.slots, decode.plan.heads_per_block,
                      decode.plan.head_groups, decode.plan.column_groups, decode.plan.shared_bytes, prefill.lanes,
                      prefill.plan.shared_bytes}) {
      *found++ = value;
    }
    return 0;
  });
}

// Returns cudaError_t, or -1 where something was written beyond the workspace.
extern "C" int edgekit_tpa_attention(int element, const std::int64_t* sizes, const double* scales,
                                     void* const* tensors) {
  const TpaAttentionParams p = params_of(sizes, scales, tensors);
  const Element type = static_cast<Element>(element);
  if (tpa_attention_problem(type, p) != nullptr) return cudaErrorInvalidValue;
  const std::size_t bytes = tpa_attention_workspace(p, type), guard = 256;
  std::vector<unsigned char> workspace(bytes + guard + 64, 0xff);  // NaN in every type
  unsigned char* start = workspace.data() + (64 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 64);
  const int status = launch_tpa_attention(type, p, start, nullptr);
  for (std::size_t i = 0; i < guard; ++i) {
    if (start[bytes + i] != 0xff) return -1;
  }
  return status;
}

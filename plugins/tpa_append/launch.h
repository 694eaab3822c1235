// What a caller of the CUDA kernel of edgekit::TPAAppend needs. Plain C++17 and the CUDA runtime's header.
#pragma once

#include <cstddef>

#ifdef EDGEKIT_CUDA_ON_HOST
#include "../common/cuda_on_host.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace edgekit {

// The element type matters only by its size: rows are copied as they are.
struct TpaAppendParams {
  int batch = 0;             // B
  int fresh = 0;             // S
  int total = 0;             // T, columns of attention_mask (whose values are not read)
  int past_slots = 0;        // second axis of past
  int present_slots = 0;     // second axis of present: T (grow) or past_slots (in place)
  std::size_t row_bytes = 0;  // R * W * size of an element
  const void* past = nullptr;   // [B,past_slots,R,W]
  const void* fresh_rows = nullptr;  // [B,S,R,W]
  void* present = nullptr;      // [B,present_slots,R,W]; may be `past` itself in place
};

// Why these sizes cannot be run, or nullptr.
const char* tpa_append_problem(const TpaAppendParams& params);

// Enqueue on `stream`; no workspace. Returns cudaErrorInvalidValue where tpa_append_problem() has an answer.
cudaError_t launch_tpa_append(const TpaAppendParams& params, cudaStream_t stream);

}  // namespace edgekit

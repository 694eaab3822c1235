// What a caller of the CUDA kernels of edgekit::TPAAttention needs: sizes and pointers in, a status out. Plain C++17;
// only the CUDA runtime's header is needed, not nvcc. The kernels are in kernel*.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/element.h"

#ifdef EDGEKIT_CUDA_ON_HOST
#include "../common/cuda_on_host.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace edgekit {

// All tensors are dense, row-major, on the device, of one element type (mask and frequencies: int64).
// Letters: B batch, S new tokens, T = S + past tokens, H heads, D key head size, E value head size.
struct TpaAttentionParams {
  int batch = 0;             // B
  int fresh = 0;             // S
  int total = 0;             // T, columns of attention_mask
  int past_slots = 0;        // second axis of the past tensors
  int present_slots = 0;     // second axis of the present tensors: T (grow) or past_slots (in place)
  int heads = 0;             // H
  int key_size = 0;          // D, even
  int value_size = 0;        // E
  int rank_q = 0;            // R_Q; ignored for a dense query
  int rank_k = 0;            // R_K
  int rank_v = 0;            // R_V
  bool factored_query = false;
  bool contextual_key = false;
  bool contextual_value = false;
  int rotary_rows = 0;       // rows of cos and sin
  int rotary_columns = 0;    // F, columns of cos and sin
  double scale = 1.0;        // factor on the scores
  double value_scale = 1.0;  // factor on the output

  const void* a_q = nullptr;  // [B,S,R_Q,H]; null for a dense query
  const void* b_q = nullptr;  // [B,S,R_Q,D], or the dense query [B,S,H,D]; not rotated
  const void* a_k = nullptr;  // [B,S,R_K,H], or static [R_K,H]
  const void* b_k = nullptr;  // [B,S,R_K,D], not rotated
  const void* a_v = nullptr;  // [B,S,R_V,H], or static [R_V,H]
  const void* b_v = nullptr;  // [B,S,R_V,E]
  const void* past_a_k = nullptr;  // [B,past_slots,R_K,H]; null for static A_K
  const void* past_b_k = nullptr;  // [B,past_slots,R_K,D], rotated
  const void* past_a_v = nullptr;  // [B,past_slots,R_V,H]; null for static A_V
  const void* past_b_v = nullptr;  // [B,past_slots,R_V,E]
  const std::int64_t* attention_mask = nullptr;  // [B,T]
  const void* cos = nullptr;                     // [rotary_rows,F]
  const void* sin = nullptr;                     // [rotary_rows,F]
  const std::int64_t* frequencies = nullptr;     // [D/2], columns of cos and sin; others, and positions, become NaN

  void* output = nullptr;       // [B,S,H,E]
  void* present_a_k = nullptr;  // like the past tensors, with present_slots slots; may be the past tensor itself
  void* present_b_k = nullptr;
  void* present_a_v = nullptr;
  void* present_b_v = nullptr;

  int multiprocessors = 0;  // of the device; decides how many splits one token's cache is cut into
  int splits = 0;           // 0: chosen by the launcher. Anything else is for tests.
};

// Why these sizes cannot be run, or nullptr. Looks at sizes only, not at pointers: whether a position is a row of cos
// depends on the mask, so T may be larger than rotary_rows.
const char* tpa_attention_problem(Element element, const TpaAttentionParams& params);

// Bytes of workspace, the same for all element types of a device. Never less for larger batch, fresh, total or
// multiprocessors, so the value for a profile's largest shapes is enough for all of its shapes.
std::size_t tpa_attention_workspace(const TpaAttentionParams& params, Element element = Element::float32);

// Enqueue on `stream`. Reads no memory on the host, allocates nothing, does not synchronise: can be captured in a graph.
// `workspace`: tpa_attention_workspace() bytes, 16-byte aligned, device memory.
// Returns cudaErrorInvalidValue where tpa_attention_problem() has an answer.
cudaError_t launch_tpa_attention(Element element, const TpaAttentionParams& params, void* workspace,
                                 cudaStream_t stream);

}  // namespace edgekit

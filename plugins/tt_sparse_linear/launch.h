// What a caller of the CUDA kernels of edgekit::TTSparseLinear needs. Plain C++17 and the CUDA runtime's header.
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

// Dense, row-major, on the device, of one element type.
struct TtSparseLinearParams {
  int tokens = 0;   // B * S
  int inputs = 0;   // K
  int outputs = 0;  // O
  int rank = 0;     // R; 0: the residual alone
  int entries = 0;  // Z, even
  const void* x = nullptr;     // [tokens,K]
  const void* a = nullptr;     // [R,K]; null for the residual alone
  const void* b = nullptr;     // [R,O]; null for the residual alone
  const std::int32_t* columns = nullptr;  // [O,Z/2]
  const void* values = nullptr;  // [O,Z]
  const void* bias = nullptr;    // [O] or null
  void* y = nullptr;             // [tokens,O]
};

// Why these sizes cannot be run, or nullptr.
const char* tt_sparse_linear_problem(Element element, const TtSparseLinearParams& params);

// Bytes of workspace: x A^T in the type of the sums. Never less for more tokens.
std::size_t tt_sparse_linear_workspace(Element element, const TtSparseLinearParams& params);

// Enqueue on `stream`. Reads no memory on the host, allocates nothing, does not synchronise: can be captured in a graph.
// `workspace`: tt_sparse_linear_workspace() bytes, 16-byte aligned, device memory.
// Returns cudaErrorInvalidValue where tt_sparse_linear_problem() has an answer.
cudaError_t launch_tt_sparse_linear(Element element, const TtSparseLinearParams& params, void* workspace,
                                    cudaStream_t stream);

}  // namespace edgekit

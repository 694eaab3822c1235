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

// Stored numbers: a number of codes is scale (code - 2^(bits-1)).
struct TtNumbers {
  int bits = 0;    // 0: of the element type; 16: float16; 8, 4: codes in words
  int block = 64;  // numbers to a scale, a multiple of 16
  const void* data = nullptr;
  const float16* scales = nullptr;
};

// Codes in words and zero points in planes, as the specification of `base`, `base_scales` and `base_zeros` orders them.
struct TtBase {
  int bits = 0;    // 2, 3 or 4; 0: there is no base
  int block = 64;  // inputs to a scale, a multiple of 32
  const std::uint32_t* words = nullptr;   // 16-byte aligned
  const float16* scales = nullptr;        // 8-byte aligned
  const std::uint16_t* zeros = nullptr;   // null: 2^(bits-1) everywhere
};

// Where the entries of the residual stand.
enum class TtResidual { nothing = 0, columns = 1, bitmap = 2, groups = 3 };

// Dense, row-major, on the device, of one element type but for the stored numbers.
struct TtSparseLinearParams {
  int tokens = 0;   // B * S
  int inputs = 0;   // K
  int outputs = 0;  // O
  int rank = 0;     // R; 0: there is no pair
  int entries = 0;  // E; 0: there is no residual
  TtResidual residual = TtResidual::nothing;
  int kept = 2;              // of each group of 4 inputs
  TtNumbers a, b, values;    // [R,K], [R,O], [E]
  const void* x = nullptr;   // [tokens,K]
  const std::int32_t* starts = nullptr;     // [O]; null for groups
  const std::int32_t* positions = nullptr;  // words
  TtBase base;
  const void* bias = nullptr;  // [O] or null
  void* y = nullptr;           // [tokens,O]
};

// Why these sizes cannot be run, or nullptr.
const char* tt_sparse_linear_problem(Element element, const TtSparseLinearParams& params);

// Bytes of workspace: x A^T and, where more is added to it, x Q^T, in the type of the sums. Never less for more tokens.
std::size_t tt_sparse_linear_workspace(Element element, const TtSparseLinearParams& params);

// Enqueue on `stream`. Reads no memory on the host, allocates nothing, does not synchronise: can be captured in a graph.
// `workspace`: tt_sparse_linear_workspace() bytes, 16-byte aligned, device memory.
// Returns cudaErrorInvalidValue where tt_sparse_linear_problem() has an answer, or a base is not aligned.
cudaError_t launch_tt_sparse_linear(Element element, const TtSparseLinearParams& params, void* workspace,
                                    cudaStream_t stream);

}  // namespace edgekit

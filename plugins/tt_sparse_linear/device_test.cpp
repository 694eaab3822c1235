// TTSparseLinear on a GPU, as a library that tests call with the addresses of device memory; linked with kernel.cu by nvcc.
#include "test_params.h"

using namespace edgekit;

extern "C" const char* edgekit_tt_sparse_linear_problem(int element, const std::int64_t* sizes) {
  void* const tensors[14] = {};
  return tt_sparse_linear_problem(static_cast<Element>(element), params_of(sizes, tensors));
}

extern "C" std::size_t edgekit_tt_sparse_linear_workspace(int element, const std::int64_t* sizes) {
  void* const tensors[14] = {};
  return tt_sparse_linear_workspace(static_cast<Element>(element), params_of(sizes, tensors));
}

// Returns cudaError_t; what goes wrong later shows when the stream is waited for.
extern "C" int edgekit_tt_sparse_linear_on_device(int element, const std::int64_t* sizes, void* const* tensors,
                                                  void* workspace, void* stream) {
  return launch_tt_sparse_linear(static_cast<Element>(element), params_of(sizes, tensors), workspace,
                                 static_cast<cudaStream_t>(stream));
}

// The CUDA source of TTSparseLinear compiled for the CPU, as a library that tests call with plain arrays.
//   g++ -std=c++20 -O1 -shared -fPIC -DEDGEKIT_CUDA_ON_HOST host_test.cpp
#include <vector>

#include "kernel.cu"
#include "test_params.h"

using namespace edgekit;

extern "C" const char* edgekit_tt_sparse_linear_problem(int element, const std::int64_t* sizes) {
  void* const tensors[14] = {};
  return tt_sparse_linear_problem(static_cast<Element>(element), params_of(sizes, tensors));
}

// Returns cudaError_t, or -1 where something was written beyond the workspace.
extern "C" int edgekit_tt_sparse_linear(int element, const std::int64_t* sizes, void* const* tensors) {
  const TtSparseLinearParams p = params_of(sizes, tensors);
  const Element type = static_cast<Element>(element);
  if (tt_sparse_linear_problem(type, p) != nullptr) return cudaErrorInvalidValue;
  const std::size_t bytes = tt_sparse_linear_workspace(type, p), guard = 256;
  std::vector<unsigned char> workspace(bytes + guard + 64, 0xff);  // NaN in every type
  unsigned char* start = workspace.data() + (64 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 64);
  const int status = launch_tt_sparse_linear(type, p, start, nullptr);
  for (std::size_t i = 0; i < guard; ++i) {
    if (start[bytes + i] != 0xff) return -1;
  }
  return status;
}

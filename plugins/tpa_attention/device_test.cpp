// TPAAttention on a GPU, as a library that tests call with the addresses of device memory; linked with the kernels by
// nvcc.
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

// Returns cudaError_t; what goes wrong later shows when the stream is waited for.
extern "C" int edgekit_tpa_attention_on_device(int element, const std::int64_t* sizes, const double* scales,
                                               void* const* tensors, void* workspace, void* stream) {
  return launch_tpa_attention(static_cast<Element>(element), params_of(sizes, scales, tensors), workspace,
                              static_cast<cudaStream_t>(stream));
}

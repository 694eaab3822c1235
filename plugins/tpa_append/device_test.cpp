// TPAAppend on a GPU, as a library that tests call with the addresses of device memory; linked with kernel.cu by nvcc.
#include "test_params.h"

using namespace edgekit;

// Returns cudaError_t; what goes wrong later shows when the stream is waited for.
extern "C" int edgekit_tpa_append_on_device(const std::int64_t* sizes, void* const* tensors, void* stream) {
  return launch_tpa_append(params_of(sizes, tensors), static_cast<cudaStream_t>(stream));
}

// The CUDA source of TPAAppend compiled for the CPU, as a library that tests call with plain arrays.
//   g++ -std=c++20 -O1 -shared -fPIC -DEDGEKIT_CUDA_ON_HOST host_test.cpp
#include "kernel.cu"
#include "test_params.h"

using namespace edgekit;

extern "C" int edgekit_tpa_append(const std::int64_t* sizes, void* const* tensors) {
  return launch_tpa_append(params_of(sizes, tensors), nullptr);
}

// The CUDA source of TPAAppend compiled for the CPU, as a library that tests call with plain arrays.
//   g++ -std=c++20 -O1 -shared -fPIC -DEDGEKIT_CUDA_ON_HOST host_test.cpp
#include "kernel.cu"

using namespace edgekit;

extern "C" int edgekit_tpa_append(const std::int64_t* sizes, void* const* tensors) {
  TpaAppendParams p;
  int i = 0;
  for (int* size : {&p.batch, &p.fresh, &p.total, &p.past_slots, &p.present_slots}) *size = static_cast<int>(sizes[i++]);
  p.row_bytes = sizes[i];
  p.past = tensors[0];
  p.fresh_rows = tensors[1];
  p.present = tensors[2];
  return launch_tpa_append(p, nullptr);
}

// The CUDA source of TTSparseLinear compiled for the CPU, as a library that tests call with plain arrays.
//   g++ -std=c++20 -O1 -shared -fPIC -DEDGEKIT_CUDA_ON_HOST host_test.cpp
#include <vector>

#include "kernel.cu"

using namespace edgekit;

namespace {

// In the order of tests/plugins/host_library.py.
TtSparseLinearParams params_of(const std::int64_t* sizes, void* const* tensors) {
  TtSparseLinearParams p;
  int i = 0, residual = 0;
  int* const integers[] = {&p.tokens,        &p.inputs,       &p.outputs,   &p.rank,        &p.entries,  &residual,
                           &p.kept,          &p.a.bits,       &p.a.block,   &p.values.bits, &p.values.block};
  for (int* size : integers) *size = static_cast<int>(sizes[i++]);
  p.residual = static_cast<TtResidual>(residual);
  p.b.bits = p.a.bits, p.b.block = p.a.block;
  i = 0;
  p.x = tensors[i++];
  for (TtNumbers* numbers : {&p.a, &p.b, &p.values}) {
    numbers->data = tensors[i++];
    numbers->scales = static_cast<const float16*>(tensors[i++]);
  }
  p.starts = static_cast<const std::int32_t*>(tensors[i++]);
  p.positions = static_cast<const std::int32_t*>(tensors[i++]);
  p.bias = tensors[i++];
  p.y = tensors[i];
  return p;
}

}  // namespace

extern "C" const char* edgekit_tt_sparse_linear_problem(int element, const std::int64_t* sizes) {
  void* const tensors[11] = {};
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

// The kernels for float32. One file per element type, so that they compile side by side.
#include "kernel.cuh"

namespace edgekit {

template const char* size_problem<float>(const TpaAttentionParams&);
template std::size_t workspace_bytes<float>(const TpaAttentionParams&);
template cudaError_t launch_tpa_attention<float>(const TpaAttentionParams&, void*, cudaStream_t);

}  // namespace edgekit

// The kernels for float16. One file per element type, so that they compile side by side.
#include "kernel.cuh"

namespace edgekit {

template const char* size_problem<float16>(const TpaAttentionParams&);
template std::size_t workspace_bytes<float16>(const TpaAttentionParams&);
template cudaError_t launch_tpa_attention<float16>(const TpaAttentionParams&, void*, cudaStream_t);

}  // namespace edgekit

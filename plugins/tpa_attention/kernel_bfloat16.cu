// The kernels for bfloat16. One file per element type, so that they compile side by side.
#include "kernel.cuh"

namespace edgekit {

template const char* size_problem<bfloat16>(const TpaAttentionParams&);
template std::size_t workspace_bytes<bfloat16>(const TpaAttentionParams&);
template cudaError_t launch_tpa_attention<bfloat16>(const TpaAttentionParams&, void*, cudaStream_t);

}  // namespace edgekit

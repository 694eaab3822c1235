// Entry points of launch.h. The kernel copies bytes, so one instance serves all element types.
#include "kernel.cuh"

namespace edgekit {

const char* tpa_append_problem(const TpaAppendParams& p) {
  if (p.batch < 1 || p.fresh < 1 || p.row_bytes < 1) return "an axis of length 0";
  if (p.batch > 65535) return "too large for one launch";
  const CacheRule rule = cache_rule(p.past_slots, p.total, p.fresh);
  if (rule == CacheRule::invalid) return "the past has neither T - S slots (grow) nor T or more (in place)";
  if (p.present_slots != (rule == CacheRule::grow ? p.total : p.past_slots)) {
    return "the present has neither T slots (grow) nor as many as the past (in place)";
  }
  return nullptr;
}

cudaError_t launch_tpa_append(const TpaAppendParams& p, cudaStream_t stream) {
  if (tpa_append_problem(p) != nullptr) return cudaErrorInvalidValue;
  const cudaError_t status =
      copy_past(p.present, p.past, p.batch, p.past_slots, p.present_slots, p.row_bytes, stream);
  if (status != cudaSuccess) return status;
  const auto words_of = [&p](std::size_t bytes) {
    const auto start = reinterpret_cast<std::uintptr_t>(p.present) | reinterpret_cast<std::uintptr_t>(p.fresh_rows);
    return start % bytes == 0 && p.row_bytes % bytes == 0;
  };
  if (words_of(16)) {
    launch_append_rows<Vec<std::uint64_t, 2>>(p, stream);
  } else if (words_of(4)) {
    launch_append_rows<std::uint32_t>(p, stream);
  } else if (words_of(2)) {
    launch_append_rows<std::uint16_t>(p, stream);
  } else {
    launch_append_rows<std::uint8_t>(p, stream);
  }
  return cudaGetLastError();
}

}  // namespace edgekit

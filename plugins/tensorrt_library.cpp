// What TensorRT asks a plugin library for. The library links neither TensorRT nor a shared CUDA runtime.
#include "common/trt_log.h"

#include <NvInferRuntimePlugin.h>

#include <string>

namespace edgekit::trt {

nvinfer1::IPluginCreatorInterface* tpa_append_creator();
nvinfer1::IPluginCreatorInterface* tpa_attention_creator();
nvinfer1::IPluginCreatorInterface* tt_sparse_linear_creator();

}  // namespace edgekit::trt

#define EDGEKIT_EXPORTED extern "C" __attribute__((visibility("default")))

EDGEKIT_EXPORTED void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { edgekit::trt::logger_finder() = finder; }

EDGEKIT_EXPORTED nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {
      edgekit::trt::tpa_append_creator(),
      edgekit::trt::tpa_attention_creator(),
      edgekit::trt::tt_sparse_linear_creator(),
  };
  count = static_cast<std::int32_t>(sizeof(creators) / sizeof(creators[0]));
  return creators;
}

// Why plugins were refused since the last call, a line each; valid until the next call in the same thread.
EDGEKIT_EXPORTED const char* edgekit_take_refusals() {
  static thread_local std::string lines;
  lines = edgekit::trt::Refusals::all().take();
  return lines.c_str();
}

// Messages of the plugins: through TensorRT's logger where there is one whose interface these headers know, else on
// stderr. Refusals are kept besides, for a caller that wants to show them as its own error.
#pragma once

#include <NvInferRuntime.h>

#include <dlfcn.h>

#include <cstdio>
#include <mutex>
#include <string>
#include <utility>

namespace edgekit::trt {

// Set by setLoggerFinder(); null until TensorRT calls it.
inline nvinfer1::ILoggerFinder*& logger_finder() {
  static nvinfer1::ILoggerFinder* finder = nullptr;
  return finder;
}

// ILogger carries no version of its own, and its virtual functions differ between TensorRT 10, 11 and TensorRT-RTX,
// while the interfaces of plugins are the same: a library may be loaded by a TensorRT whose logger it cannot call.
// The major version is in the file's name. The finder knows the logger of a running engine only; while an engine is
// built, there is TensorRT's own.
inline nvinfer1::ILogger* logger() {
#define EDGEKIT_TEXT_(x) #x
#define EDGEKIT_TEXT(x) EDGEKIT_TEXT_(x)
  static void* const tensorrt = dlopen("libnvinfer.so." EDGEKIT_TEXT(NV_TENSORRT_MAJOR), RTLD_LAZY | RTLD_NOLOAD);
#undef EDGEKIT_TEXT
#undef EDGEKIT_TEXT_
  if (!tensorrt) return nullptr;
  nvinfer1::ILogger* running = logger_finder() ? logger_finder()->findLogger() : nullptr;
  if (running) return running;
  using GetLogger = nvinfer1::ILogger* (*)();
  const auto own = reinterpret_cast<GetLogger>(dlsym(tensorrt, "getLogger"));
  return own ? own() : nullptr;
}

// The refusals since the last call of take_refusals(), a line each.
class Refusals {
 public:
  static Refusals& all() {
    static Refusals refusals;
    return refusals;
  }
  void add(const std::string& line) {
    const std::lock_guard<std::mutex> hold(mutex_);
    if (lines_.size() < 4096) lines_ += line + "\n";
  }
  std::string take() {
    const std::lock_guard<std::mutex> hold(mutex_);
    return std::exchange(lines_, {});
  }

 private:
  std::mutex mutex_;
  std::string lines_;
};

// Say why something is refused: the rule that must hold and the fact that breaks it.
inline void refuse(const char* op, const std::string& rule, const std::string& fact) {
  const std::string message = std::string("edgekit::") + op + ": " + rule + "; " + fact;
  Refusals::all().add(message);
  if (nvinfer1::ILogger* to = logger()) {
    to->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
  } else {
    std::fprintf(stderr, "%s\n", message.c_str());
  }
}

}  // namespace edgekit::trt

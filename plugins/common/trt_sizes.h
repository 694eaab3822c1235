// Checking tensor shapes against a signature written in letters: "B,S,R_K,D", "D/2".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

namespace edgekit::trt {

// Element types; kGraph: that of the operator. In the order of Type in generated headers.
enum class Type { kGraph, kInt64, kInt32, kFloat16 };

// An input or output of an operator.
struct Operand {
  const char* name;
  const char* axes;         // letters, separated by commas
  Type type = Type::kGraph;
  int past = -1;            // of a cache output: the input that holds its older rows

  bool of_the_graph() const { return type == Type::kGraph; }
};

inline std::vector<std::string> letters(const char* axes) {
  std::vector<std::string> found(1);
  for (const char* c = axes; *c; ++c) {
    if (*c == ',') {
      found.emplace_back();
    } else {
      found.back() += *c;
    }
  }
  return found;
}

inline std::string text(const nvinfer1::Dims& dims) {
  std::string shape = "[";
  for (int i = 0; i < dims.nbDims; ++i) {
    shape += (i ? "," : "") + (dims.d[i] < 0 ? std::string("?") : std::to_string(dims.d[i]));
  }
  return shape + "]";
}

// Sizes by letter, collected operand by operand. Sizes that are not known yet (-1) are passed over.
class Sizes {
 public:
  // Empty, or what is wrong with this operand.
  std::string bind(const Operand& operand, const nvinfer1::Dims& dims) {
    const auto names = letters(operand.axes);
    if (dims.nbDims != static_cast<int>(names.size())) {
      return std::string(operand.name) + " is " + text(dims) + ", its axes are [" + operand.axes + "]";
    }
    for (int i = 0; i < dims.nbDims; ++i) {
      if (dims.d[i] < 0) continue;
      const auto slash = names[i].find('/');
      const std::int64_t divisor = slash == std::string::npos ? 1 : std::stoi(names[i].substr(slash + 1));
      const auto [place, fresh] = known_.try_emplace(names[i].substr(0, slash), dims.d[i] * divisor, operand.name);
      if (!fresh && place->second.size != dims.d[i] * divisor) {
        return std::string(operand.name) + " is " + text(dims) + " for [" + operand.axes + "], but by " +
               place->second.source + " " + place->first + " is " + std::to_string(place->second.size);
      }
    }
    return "";
  }

  // Takes in a size that an attribute states.
  void state(const char* letter, std::int64_t size) { known_.try_emplace(letter, size, "its attribute"); }

  // The size of this letter, or -1.
  std::int64_t of(const std::string& letter) const {
    const auto place = known_.find(letter);
    return place == known_.end() ? -1 : place->second.size;
  }

 private:
  struct Known {
    Known(std::int64_t size, const char* source) : size(size), source(source) {}
    std::int64_t size;
    const char* source;
  };
  std::map<std::string, Known> known_;
};

}  // namespace edgekit::trt

// edgekit::TPAAppend for ONNX Runtime on the CPU.
#include "../common/axes.h"
#include "../common/cache_append.h"
#include "generated.h"

namespace {

namespace names = edgekit::tpa_append;
namespace ort = edgekit::ort;
using names::Input;

template <class T>
class TPAAppend {
 public:
  static constexpr const char* name = names::kName;
  static constexpr int inputs = names::kInputLimit, optional_inputs = 0;
  static constexpr int outputs = names::kOutputLimit, optional_outputs = 0;

  explicit TPAAppend(const ort::Attributes&) {}

  void compute(ort::Context& context) const {
    ort::Axes axes;
    const T* past = input<T>(context, axes, Input::kPast);
    const T* fresh = input<T>(context, axes, Input::kNew);
    input<std::int64_t>(context, axes, Input::kAttentionMask);
    const int slots = axes["P"], total = axes["T"], new_rows = axes["S"];
    const edgekit::CacheRule rule = edgekit::cache_rule(slots, total, new_rows);
    if (rule == edgekit::CacheRule::invalid)
      throw ort::Refusal("the past must hold T - S slots, or be a buffer of T or more",
                         "it has " + std::to_string(slots) + ", T = " + std::to_string(total) +
                             " (attention_mask), S = " + std::to_string(new_rows));
    const int capacity = rule == edgekit::CacheRule::grow ? total : slots;
    T* present = context.output<T>(0, {axes["B"], capacity, axes["R"], axes["W"]});
    edgekit::append<T>({{past, fresh, present, slots, capacity, static_cast<std::ptrdiff_t>(axes["R"]) * axes["W"]}},
                       axes["B"], total - new_rows, new_rows,
                       [&](std::size_t tasks, const auto& body) { context.parallel_for(tasks, body); });
  }

 private:
  template <class E>
  static const E* input(ort::Context& context, ort::Axes& axes, Input which) {
    const char* operand = names::kInputNames[static_cast<int>(which)];
    const char* letters = names::input_axes(which);
    const ort::Tensor<const E> tensor = context.input<E>(names::input_index(which), operand, ort::rank_of(letters));
    axes.bind(operand, letters, tensor.shape);
    return tensor.data;
  }
};

EDGEKIT_ORT_OPERATOR(TPAAppend)

}  // namespace

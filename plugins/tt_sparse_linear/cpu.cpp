// edgekit::TTSparseLinear for ONNX Runtime on the CPU: what a call must satisfy, and the layer of cpu_linear.h.
#include "../common/axes.h"
#include "cpu_linear.h"
#include "generated.h"

namespace {

namespace names = edgekit::tt_sparse_linear;
namespace ort = edgekit::ort;
namespace tt_sparse = edgekit::tt_sparse;
using names::Input;

template <class T>
class TTSparseLinear {
 public:
  static constexpr const char* name = names::kName;
  static constexpr int inputs = names::input_count(false, false), optional_inputs = names::kInputLimit - inputs;
  static constexpr int outputs = names::kOutputLimit, optional_outputs = 0;

  explicit TTSparseLinear(const ort::Attributes& attributes)
      : low_rank_(attributes.flag("low_rank")), bias_(attributes.flag("bias")) {
    for (const char* bits : {"factor_bits", "value_bits"})
      if (attributes.integer(bits) != 0)
        throw ort::Refusal(std::string(bits) + " must be 0", "it is " + std::to_string(attributes.integer(bits)));
  }

  void compute(ort::Context& context) const {
    const int wanted = names::input_count(low_rank_, bias_);
    if (context.input_count() != wanted)
      throw ort::Refusal("low_rank=" + std::to_string(low_rank_) + " bias=" + std::to_string(bias_) + " asks for " +
                             std::to_string(wanted) + " inputs",
                         "the node has " + std::to_string(context.input_count()));
    ort::Axes axes;
    tt_sparse::Problem<T> p{};
    p.x = input<T>(context, axes, Input::kX);
    if (low_rank_) {
      p.a = input<T>(context, axes, Input::kA);
      p.b = input<T>(context, axes, Input::kB);
      p.rank = axes["R"];
    }
    p.values = input<T>(context, axes, Input::kValues);
    p.columns = reinterpret_cast<const std::uint16_t*>(input<std::int32_t>(context, axes, Input::kColumns));
    if (bias_) p.bias = input<T>(context, axes, Input::kBias);
    p.inputs = axes["K"];
    p.outputs = axes["O"];
    p.entries = axes["Z"];
    if (p.inputs < 1 || p.inputs > 65536 || p.outputs < 1 || p.entries < 1 || (low_rank_ && p.rank < 1))
      throw ort::Refusal("K must be 1 to 65536, O, Z and R at least 1",
                         "they are " + ort::to_string({p.inputs, p.outputs, p.entries, p.rank}));
    const std::int64_t tokens = static_cast<std::int64_t>(axes["B"]) * axes["S"];
    if (tokens > std::numeric_limits<std::int32_t>::max())
      throw ort::Refusal("B S must be below 2^31", "it is " + std::to_string(tokens));
    p.tokens = static_cast<int>(tokens);
    p.y = context.output<T>(0, {axes["B"], axes["S"], p.outputs});
    tt_sparse::linear(p, [&](std::size_t tasks, const auto& body) { context.parallel_for(tasks, body); });
  }

 private:
  template <class E>
  const E* input(ort::Context& context, ort::Axes& axes, Input which) const {
    const char* operand = names::kInputNames[static_cast<int>(which)];
    const char* letters = names::input_axes(which, low_rank_, bias_);
    const int index = names::input_index(which, low_rank_, bias_);
    const ort::Tensor<const E> tensor = context.input<E>(index, operand, ort::rank_of(letters));
    axes.bind(operand, letters, tensor.shape);
    return tensor.data;
  }

  bool low_rank_, bias_;
};

EDGEKIT_ORT_OPERATOR(TTSparseLinear)

}  // namespace

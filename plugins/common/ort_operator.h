// Writing an operator for ONNX Runtime: a class per operator and element type, found by EDGEKIT_ORT_OPERATOR.
//
//   template <class T> struct MyKernel {
//     static constexpr const char* name = "MyOperator";
//     static constexpr int inputs = 3, optional_inputs = 0, outputs = 1, optional_outputs = 0;
//     explicit MyKernel(const ort::Attributes&);
//     void compute(ort::Context&) const;
//   };
//   EDGEKIT_ORT_OPERATOR(MyKernel)
//
// Input 0 and all outputs have element type T, by which ONNX Runtime chooses among the kernels of one name; the other
// inputs are declared as of any type and checked by Context::input. Errors are thrown as Refusal and reach the
// caller as a status that names the operator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>
#include <string>

#include "core.h"
#include "ort_abi.h"

namespace edgekit::ort {

// What must hold and what was found instead.
class Refusal : public std::exception {
 public:
  Refusal(const std::string& rule, const std::string& fact) : text_(rule + "; " + fact) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

template <class T>
constexpr ElementType element_type();
template <>
constexpr ElementType element_type<float>() { return kFloat; }
template <>
constexpr ElementType element_type<double>() { return kDouble; }
template <>
constexpr ElementType element_type<float16>() { return kFloat16; }
template <>
constexpr ElementType element_type<bfloat16>() { return kBFloat16; }
template <>
constexpr ElementType element_type<std::int64_t>() { return kInt64; }
template <>
constexpr ElementType element_type<std::int32_t>() { return kInt32; }

inline std::string type_name(int type) {
  switch (type) {
    case kFloat: return "float32";
    case kInt64: return "int64";
    case kInt32: return "int32";
    case kFloat16: return "float16";
    case kDouble: return "float64";
    case kBFloat16: return "bfloat16";
    default: return "type " + std::to_string(type);
  }
}

// Dimensions, without an allocation per call.
class Shape {
 public:
  static constexpr std::size_t kMost = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) {
    for (std::int64_t size : sizes) sizes_[rank_++] = size;
  }
  std::size_t rank() const { return rank_; }
  const std::int64_t* begin() const { return sizes_; }
  const std::int64_t* end() const { return sizes_ + rank_; }
  // Room for `rank` sizes, to be written.
  std::int64_t* resize(std::size_t rank) {
    if (rank > kMost) throw Refusal("a tensor must have at most 8 dimensions", "one has " + std::to_string(rank));
    rank_ = rank;
    return sizes_;
  }

 private:
  std::int64_t sizes_[kMost] = {};
  std::size_t rank_ = 0;
};

inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

template <class T>
struct Tensor {
  T* data;
  Shape shape;
};

// Turns a status of ONNX Runtime, which is null for success, into an exception that keeps it.
struct StatusError {
  Status* status;
};
inline void check(Status* status) {
  if (status) throw StatusError{status};
}

class Attributes {
 public:
  Attributes(const Api& api, const KernelInfo* info) : api_(api), info_(info) {}

  float real(const char* name) const {
    float value = 0;
    require(api_.get(KernelInfoGetAttribute_float)(info_, name, &value), name, "a float");
    return value;
  }

  std::int64_t integer(const char* name) const {
    std::int64_t value = 0;
    require(api_.get(KernelInfoGetAttribute_int64)(info_, name, &value), name, "an integer");
    return value;
  }

  bool flag(const char* name) const {
    std::int64_t value = 0;
    require(api_.get(KernelInfoGetAttribute_int64)(info_, name, &value), name, "0 or 1");
    if (value != 0 && value != 1)
      throw Refusal(std::string("attribute ") + name + " must be 0 or 1", "it is " + std::to_string(value));
    return value != 0;
  }

 private:
  void require(Status* status, const char* name, const char* what) const {
    if (!status) return;
    api_.get(ReleaseStatus)(status);
    throw Refusal(std::string("attribute ") + name + " must be " + what, "the node has none of that name and type");
  }

  const Api& api_;
  const KernelInfo* info_;
};

class Context {
 public:
  Context(const Api& api, KernelContext* context) : api_(api), context_(context) {}

  int input_count() const {
    std::size_t count = 0;
    check(api_.get(KernelContext_GetInputCount)(context_, &count));
    return static_cast<int>(count);
  }

  int output_count() const {
    std::size_t count = 0;
    check(api_.get(KernelContext_GetOutputCount)(context_, &count));
    return static_cast<int>(count);
  }

  // Element type of input `index`.
  int input_type(int index) const {
    const Value* value = nullptr;
    check(api_.get(KernelContext_GetInput)(context_, static_cast<std::size_t>(index), &value));
    if (!value) return kUndefined;
    TensorInfo* info = nullptr;
    check(api_.get(GetTensorTypeAndShape)(value, &info));
    int type = kUndefined;
    Status* status = api_.get(GetTensorElementType)(info, &type);
    api_.get(ReleaseTensorTypeAndShapeInfo)(info);
    check(status);
    return type;
  }

  // Input `index`, which must be a tensor of type T with `rank` dimensions. `name` is for messages.
  template <class T>
  Tensor<const T> input(int index, const char* name, int rank) const {
    const Value* value = nullptr;
    check(api_.get(KernelContext_GetInput)(context_, static_cast<std::size_t>(index), &value));
    if (!value) throw Refusal(std::string("input ") + name + " must be given", "it is absent");
    TensorInfo* info = nullptr;
    check(api_.get(GetTensorTypeAndShape)(value, &info));
    int type = kUndefined;
    std::size_t dimensions = 0;
    std::int64_t sizes[Shape::kMost];
    Status* status = api_.get(GetTensorElementType)(info, &type);
    if (!status) status = api_.get(GetDimensionsCount)(info, &dimensions);
    if (!status && dimensions <= Shape::kMost) status = api_.get(GetDimensions)(info, sizes, dimensions);
    api_.get(ReleaseTensorTypeAndShapeInfo)(info);
    check(status);
    Shape shape;
    std::copy_n(sizes, dimensions, shape.resize(dimensions));
    if (type != element_type<T>())
      throw Refusal(std::string("input ") + name + " must be " + type_name(element_type<T>()),
                    "it is " + type_name(type));
    if (static_cast<int>(shape.rank()) != rank)
      throw Refusal(std::string("input ") + name + " must have " + std::to_string(rank) + " dimensions",
                    "its shape is " + to_string(shape));
    void* data = nullptr;
    check(api_.get(GetTensorMutableData)(const_cast<Value*>(value), &data));
    return {static_cast<const T*>(data), shape};
  }

  template <class T>
  T* output(int index, const Shape& shape) {
    Value* value = nullptr;
    check(api_.get(KernelContext_GetOutput)(context_, static_cast<std::size_t>(index), shape.begin(), shape.rank(),
                                            &value));
    if (!value) throw Refusal("every output must have a name", "output " + std::to_string(index) + " has none");
    void* data = nullptr;
    check(api_.get(GetTensorMutableData)(value, &data));
    return static_cast<T*>(data);
  }

  // Calls body(i) for i in [0, count) on the session's threads, in any order. An exception ends up here.
  template <class Body>
  void parallel_for(std::size_t count, const Body& body) const {
    if (count == 1) return body(std::size_t{0});
    struct Shared {
      const Body& body;
      std::exception_ptr error;
      bool failed;
    } shared{body, nullptr, false};
    auto call = [](void* data, std::size_t index) {
      Shared& mine = *static_cast<Shared*>(data);
      try {
        mine.body(index);
      } catch (...) {
        // Losing all but one of several errors is harmless; the exchange keeps the winner's pointer whole.
        if (!__atomic_exchange_n(&mine.failed, true, __ATOMIC_ACQ_REL)) mine.error = std::current_exception();
      }
    };
    if (count) check(api_.get(KernelContext_ParallelFor)(context_, call, count, 0, &shared));
    if (shared.error) std::rethrow_exception(shared.error);
  }

 private:
  const Api& api_;
  KernelContext* context_;
};

// The operators of this library: a list that the static Register objects of all sources form before it is used.
struct Listed {
  CustomOp op;
  Listed* next = nullptr;
};
inline Listed*& operator_list() {
  static Listed* head = nullptr;
  return head;
}

template <class Kernel, class T>
class Register {
 public:
  Register() {
    CustomOp& op = listed_.op;
    op.GetName = [](const CustomOp*) { return Kernel::name; };
    op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
    op.GetInputType = [](const CustomOp*, std::size_t i) { return int(i == 0 ? element_type<T>() : kUndefined); };
    op.GetInputTypeCount = [](const CustomOp*) { return std::size_t(Kernel::inputs + Kernel::optional_inputs); };
    op.GetOutputType = [](const CustomOp*, std::size_t) { return int(element_type<T>()); };
    op.GetOutputTypeCount = [](const CustomOp*) { return std::size_t(Kernel::outputs + Kernel::optional_outputs); };
    op.KernelDestroy = [](void* kernel) { delete static_cast<State*>(kernel); };
    op.GetInputCharacteristic = [](const CustomOp*, std::size_t i) {
      return i < Kernel::inputs ? kRequired : kOptional;
    };
    op.GetOutputCharacteristic = [](const CustomOp*, std::size_t i) {
      return i < Kernel::outputs ? kRequired : kOptional;
    };
    op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return 0; };
    op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
    op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
    op.GetStartVersion = one;
    op.GetEndVersion = [](const CustomOp*) { return 0x7fffffff; };
    op.CreateKernelV2 = create;
    op.KernelComputeV2 = compute;
    listed_.next = operator_list();
    operator_list() = &listed_;
  }

 private:
  struct State {
    const Api& api;
    Kernel kernel;
  };

  static int one(const CustomOp*) { return 1; }

  static Status* create(const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) {
    return guarded(*api, [&] { *kernel = new State{*api, Kernel(Attributes(*api, info))}; });
  }

  static Status* compute(void* kernel, KernelContext* context) {
    const State& state = *static_cast<State*>(kernel);
    return guarded(state.api, [&] {
      Context wrapped(state.api, context);
      state.kernel.compute(wrapped);
    });
  }

  template <class Body>
  static Status* guarded(const Api& api, const Body& body) {
    const auto fail = [&](int code, const char* text) {
      return api.get(CreateStatus)(code, (std::string("edgekit::") + Kernel::name + ": " + text).c_str());
    };
    try {
      body();
      return nullptr;
    } catch (const StatusError& error) {
      return error.status;
    } catch (const Refusal& refusal) {
      return fail(kInvalidArgument, refusal.what());
    } catch (const std::bad_alloc&) {
      return fail(kFail, "out of memory");
    } catch (const std::exception& error) {
      return fail(kFail, error.what());
    }
  }

  Listed listed_;
};

}  // namespace edgekit::ort

#define EDGEKIT_ORT_OPERATOR(Kernel)                                                 \
  static const edgekit::ort::Register<Kernel<float>, float> Kernel##_float32;        \
  static const edgekit::ort::Register<Kernel<double>, double> Kernel##_float64;      \
  static const edgekit::ort::Register<Kernel<edgekit::float16>, edgekit::float16> Kernel##_float16; \
  static const edgekit::ort::Register<Kernel<edgekit::bfloat16>, edgekit::bfloat16> Kernel##_bfloat16;

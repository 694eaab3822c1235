// The part of ONNX Runtime's C interface that custom operators use, written out so that no header of it is needed.
//
// OrtApi is a table of function pointers to which every release appends; an index never changes. The indices below are
// those of include/onnxruntime/core/session/onnxruntime_c_api.h (API version 21, ONNX Runtime 1.21); OrtCustomOp is
// its struct of that version. tests/native/test_abi.py compares both with that header where it is installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgekit::ort {

constexpr std::uint32_t kApiVersion = 21;

struct Status;
struct Value;
struct KernelContext;
struct KernelInfo;
struct SessionOptions;
struct CustomOpDomain;
struct TensorInfo;

// enum OrtErrorCode
constexpr int kFail = 1, kInvalidArgument = 2;

// enum ONNXTensorElementDataType
enum ElementType : int {
  kUndefined = 0,
  kFloat = 1,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kDouble = 11,
  kBFloat16 = 16,
};

// enum OrtCustomOpInputOutputCharacteristic
constexpr int kRequired = 0, kOptional = 1;

template <int Index, class Result, class... Arguments>
struct Entry {
  static constexpr int index = Index;
  using Function = Result (*)(Arguments...);
};

struct Api {
  const void* table[285];

  template <class E>
  typename E::Function get(E) const {
    return reinterpret_cast<typename E::Function>(const_cast<void*>(table[E::index]));
  }
};

struct ApiBase {
  const Api* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

constexpr Entry<0, Status*, int, const char*> CreateStatus{};
constexpr Entry<26, Status*, const char*, CustomOpDomain**> CreateCustomOpDomain{};
constexpr Entry<27, Status*, CustomOpDomain*, const void*> CustomOpDomain_Add{};
constexpr Entry<28, Status*, SessionOptions*, CustomOpDomain*> AddCustomOpDomain{};
constexpr Entry<51, Status*, Value*, void**> GetTensorMutableData{};
constexpr Entry<60, Status*, const TensorInfo*, int*> GetTensorElementType{};
constexpr Entry<61, Status*, const TensorInfo*, std::size_t*> GetDimensionsCount{};
constexpr Entry<62, Status*, const TensorInfo*, std::int64_t*, std::size_t> GetDimensions{};
constexpr Entry<65, Status*, const Value*, TensorInfo**> GetTensorTypeAndShape{};
constexpr Entry<85, Status*, const KernelInfo*, const char*, float*> KernelInfoGetAttribute_float{};
constexpr Entry<86, Status*, const KernelInfo*, const char*, std::int64_t*> KernelInfoGetAttribute_int64{};
constexpr Entry<88, Status*, const KernelContext*, std::size_t*> KernelContext_GetInputCount{};
constexpr Entry<89, Status*, const KernelContext*, std::size_t*> KernelContext_GetOutputCount{};
constexpr Entry<90, Status*, const KernelContext*, std::size_t, const Value**> KernelContext_GetInput{};
constexpr Entry<91, Status*, KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**>
    KernelContext_GetOutput{};
constexpr Entry<93, void, Status*> ReleaseStatus{};
constexpr Entry<99, void, TensorInfo*> ReleaseTensorTypeAndShapeInfo{};
constexpr Entry<274, Status*, const KernelContext*, void (*)(void*, std::size_t), std::size_t, std::size_t, void*>
    KernelContext_ParallelFor{};

// struct OrtCustomOp. KernelCompute is null: CreateKernelV2 and KernelComputeV2, which return a status, are used.
struct CustomOp {
  std::uint32_t version = kApiVersion;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*) = nullptr;
  const char* (*GetName)(const CustomOp*) = nullptr;
  const char* (*GetExecutionProviderType)(const CustomOp*) = nullptr;
  int (*GetInputType)(const CustomOp*, std::size_t) = nullptr;
  std::size_t (*GetInputTypeCount)(const CustomOp*) = nullptr;
  int (*GetOutputType)(const CustomOp*, std::size_t) = nullptr;
  std::size_t (*GetOutputTypeCount)(const CustomOp*) = nullptr;
  void (*KernelCompute)(void*, KernelContext*) = nullptr;
  void (*KernelDestroy)(void*) = nullptr;
  int (*GetInputCharacteristic)(const CustomOp*, std::size_t) = nullptr;
  int (*GetOutputCharacteristic)(const CustomOp*, std::size_t) = nullptr;
  int (*GetInputMemoryType)(const CustomOp*, std::size_t) = nullptr;
  int (*GetVariadicInputMinArity)(const CustomOp*) = nullptr;
  int (*GetVariadicInputHomogeneity)(const CustomOp*) = nullptr;
  int (*GetVariadicOutputMinArity)(const CustomOp*) = nullptr;
  int (*GetVariadicOutputHomogeneity)(const CustomOp*) = nullptr;
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void**) = nullptr;
  Status* (*KernelComputeV2)(void*, KernelContext*) = nullptr;
  Status* (*InferOutputShapeFn)(const CustomOp*, void*) = nullptr;
  int (*GetStartVersion)(const CustomOp*) = nullptr;
  int (*GetEndVersion)(const CustomOp*) = nullptr;
  std::size_t (*GetMayInplace)(int**, int**) = nullptr;
  void (*ReleaseMayInplace)(int*, int*) = nullptr;
  std::size_t (*GetAliasMap)(int**, int**) = nullptr;
  void (*ReleaseAliasMap)(int*, int*) = nullptr;
};

static_assert(sizeof(void*) != 8 || sizeof(CustomOp) == 26 * 8, "OrtCustomOp of API version 21 has 26 words");

}  // namespace edgekit::ort

"""TensorRT engines from ONNX graphs, and the plugin library they need.

Only here and in the runtime is TensorRT imported, and only when it is used. Runs on a device: no torch, no onnx.
"""

"""What a model will cost on a named device, before anything is exported or built: memory, time, speed.

Everything here is arithmetic on configurations and device profiles: no torch, no onnx, no TensorRT.
"""

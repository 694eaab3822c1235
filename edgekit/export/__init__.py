"""From a model to ONNX: trace, bind weights, rewrite, write."""

"""Operators spelled in standard ONNX operators, one file each. Needs no torch."""

"""Graph rewriting over onnx-graphsurgeon: one rule per file, ordered per target in `pipelines`. Needs no torch."""

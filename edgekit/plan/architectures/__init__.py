"""Sizes of architectures, one file per Hugging Face model_type with a function `sizes(config) -> ModelSizes`."""

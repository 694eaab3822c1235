"""Hugging Face tokenizer files out of a GGUF file's metadata."""

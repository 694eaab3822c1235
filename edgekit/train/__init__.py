"""Training a small model from text: recipe, corpus, tokenizer, trainer. Made for a CPU and minutes."""

"""What a bundle's answers are worth: perplexity. Needs no more than the device's runtime."""

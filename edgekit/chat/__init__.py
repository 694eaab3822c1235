"""From a conversation to tokens and back: tokenizer, chat template, conversation, terminal."""

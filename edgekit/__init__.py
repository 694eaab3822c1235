"""edgekit: from a language-model checkpoint to a chat on an edge device."""

__version__ = "0.1.0"

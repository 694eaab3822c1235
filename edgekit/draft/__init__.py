"""Draft heads: a joint distribution of the next tokens in low-rank CP form, trained on a frozen model."""

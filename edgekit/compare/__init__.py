"""Several bundles side by side: how well they predict, how far they are from a reference, size, and speed here."""

"""Healing: short training of what a conversion changed, against the model it was made from."""

"""Proof that a bundle computes what its PyTorch model computes: stage by stage, with the tolerance of its numbers."""

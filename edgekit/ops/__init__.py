"""Operators of edgekit, each with its PyTorch reference."""

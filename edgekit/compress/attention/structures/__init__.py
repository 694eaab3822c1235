"""The structures of keys and values, one file each, found by name.

A file defines `KEY`, `VALUE` or both: objects with the methods of `edgekit.compress.attention.structure.Structure`.
"""

"""Operators as data, one file each; see `edgekit.ops.spec`."""

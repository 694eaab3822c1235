"""Rewrite rules: each file holds one `RULE`."""

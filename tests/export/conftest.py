"""Tiny traced models, as the rewriting tests use them."""

from __future__ import annotations

from tests.rewrite.conftest import _one_thread, forms

__all__ = ["_one_thread", "forms"]

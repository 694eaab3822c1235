"""Drafting several tokens and verifying them: no torch, nothing but numpy and the runtime's own sessions."""

"""Recipes: what is needed to make a bundle again, and the engine that makes it."""

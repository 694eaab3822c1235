"""What scripts/compare-compressions is made of."""

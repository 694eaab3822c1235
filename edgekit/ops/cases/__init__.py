"""Operands on which every form of an operator is compared with its reference, one file each. Needs no torch."""

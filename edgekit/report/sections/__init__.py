"""The parts of a bundle's report: one file each, found by its name.

A file defines ORDER (its place on the page, ascending) and `section(source) -> Section | None`, None where it has
nothing to say of the bundle. The section's name is the file's.
"""

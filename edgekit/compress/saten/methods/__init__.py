"""One method per file; the file's name with hyphens is the method's."""

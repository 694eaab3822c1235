"""One self-contained HTML page about a bundle: where it came from, whether it is right, how large and fast it is."""

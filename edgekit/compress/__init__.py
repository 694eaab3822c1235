"""Making weights smaller: block quantisation, and what decides where it may be used."""

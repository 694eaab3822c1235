"""How fast a bundle runs here, and in how much memory. Needs no more than the device's runtime."""

"""Compressing a whole checkpoint layer by layer, in the memory of one layer and of the calibration's hidden states."""

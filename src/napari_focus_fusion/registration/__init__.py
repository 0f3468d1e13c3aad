"""Slices in register and of one brightness: estimates, applied where pixels are read."""

"""Slices in register and of one brightness: estimated, applied where they are read."""

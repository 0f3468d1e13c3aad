"""Slices in register and of one brightness: estimated, and applied where they are read."""

"""Who runs the regions of a stack, and how they read it."""

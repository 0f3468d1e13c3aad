"""Runs the regions of a stack: plan, reading, scoring, composing, storing."""

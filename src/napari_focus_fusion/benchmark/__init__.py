"""Comparisons: our models, the programs of others, data sets with and without truth."""

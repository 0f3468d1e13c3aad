"""Making training data with exact truth, and training the models on it."""

"""Training questions that also occur in a benchmark."""

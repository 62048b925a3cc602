"""Experiments from a file, their run results, and what they say about the paper's claims."""

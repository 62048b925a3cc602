"""Evaluation: benchmarks asked through a server, scored by a real kit in its own environment."""

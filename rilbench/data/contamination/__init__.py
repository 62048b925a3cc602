"""Contamination: training questions whose images or words occur in the benchmarks."""

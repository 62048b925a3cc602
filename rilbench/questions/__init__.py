"""Questions before training: imported, selected, and compared with the benchmarks."""

"""A fast engine for experiments: the same step in one process, each prompt computed once."""

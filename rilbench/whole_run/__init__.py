"""The whole experiment of a run file: data, training, evaluation, table."""

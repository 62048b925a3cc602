"""The laboratory: experiments from a file, their rows, and what the rows say about the paper."""

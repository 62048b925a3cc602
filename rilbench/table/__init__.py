"""The table: the paper's rows, and under them what was measured.

``rows`` says what a row is, ``paper`` reads the paper's, ``compare`` makes the measured ones with
their differences, and ``render`` writes them down.
"""

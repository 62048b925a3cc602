"""The table: the paper's rows, and below them what was measured.

`types` defines a row, `paper_rows` reads the paper's, `measured_rows` makes those of the ledger
with their differences, `build` puts the table together, and `render` writes it. `comparison`
compares two evaluations question by question, and `inspect_ledger` shows what the ledger holds.
"""

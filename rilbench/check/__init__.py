"""The regression gate: does each model still score within its baseline bounds?

A baseline file has, for each kind of model, one metric for each benchmark, their mean, and the
metrics of its training; each metric has a bound. `rilbench.check.thresholds` derives the bounds and
says what they are worth, `rilbench.check.compare` compares a ledger with them.
"""

"""The gate of continuous integration: is a model what such models have always been?

A baseline file has, for each kind of model, one cell for each benchmark, their mean, and what its
training came to; each cell has a bound. `rilbench.check.thresholds` says how the bounds are made
and what they are worth, `rilbench.check.compare` holds a ledger against them.
"""

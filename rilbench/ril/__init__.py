"""The method as small pure functions on tensors: no trainer, no files, no global state.

``rewards`` what a response earns, ``advantage`` what it earns beyond its group, ``discriminator``
Equation 1, ``policy`` Equation 2. Each takes plain tensors, so that a trainer, a test and a
notebook call the same code.
"""

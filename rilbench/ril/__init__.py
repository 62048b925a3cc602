"""The method as small pure functions on tensors: no trainer, no files, no global state.

Read ``methods`` (what each method uses), then ``step`` (one call from logits and verdicts to
advantages), then what it calls: ``rewards`` (what a response earns), ``advantage`` (what it earns
beyond its group), ``discriminator`` (Equation 1) and ``policy`` (Equation 2). The trainer, the
minimal loop in ``examples/ril_minimal.py``, the tests and a notebook call the same code.
"""

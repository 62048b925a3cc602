"""Results that VLMEvalKit and lmms-eval wrote elsewhere, read into the ledger.

`folder` sorts the files, `vlmevalkit` and `lmmseval` read each kit's, and `to_ledger` makes
evaluations of them. No code of a kit is run, and no pickle is read.
"""

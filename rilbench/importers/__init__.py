"""Results that VLMEvalKit and lmms-eval wrote elsewhere, read into the ledger.

`folder` finds what a folder holds, `vlmevalkit` and `lmmseval` read each kit's files, `record`
makes evaluations of them. Nothing of a kit is run, and no pickle is read.
"""

"""One TOML file per benchmark: a file dropped into this folder is a benchmark.

A file outside of it works in two more ways: given by its path (``rilbench eval --benchmarks
my.toml``), or in a package of TOML files that another distribution names under the entry-point
group ``rilbench.benchmarks``.

The top of a file has two fields:

``name``: text, as tables, the ledger and ``--benchmarks`` show it.
``stand_in``: true where ``rilbench/nano`` has synthetic stand-ins of its data files; default false.

Below it, one ``[[vlmevalkit]]`` or ``[[lmms-eval]]`` section for each of the benchmark's data sets
(several count as the plain mean of their scores). Its fields are those of
`rilbench.evaluate.benchmark.Dataset`; ``name`` and ``questions`` are required.

What the kits can score:

- VLMEvalKit: the data sets that it knows whose type is multiple choice or short-answer VQA; and
  multiple choice of your own, ``<name>.tsv`` with the columns ``index``, ``question``, ``image``
  (base64), ``A``, ``B``, … and ``answer``.
- lmms-eval: the tasks that it knows, by their names; not data of your own.
"""

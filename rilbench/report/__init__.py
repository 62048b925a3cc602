"""The report: one page for a browser, which needs no network and shows runs question by question.

``subjects`` finds what a name of the command line stands for, ``model`` gathers everything as plain
values, ``page`` writes them down; scores, charts, questions, training groups and pictures have a
module each. Whatever a model, a data file or a label says is hostile text until it is escaped.
"""

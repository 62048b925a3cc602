"""The report: one page for a browser, without network, that shows runs question by question.

``selection`` resolves the names of the command line, ``report_data`` gathers everything as plain
values, ``page`` writes it; scores, charts, questions, training groups and pictures have a module
each. Responses, data files and labels are hostile text until they are escaped.
"""

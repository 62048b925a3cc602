"""Questions: format, importers, selection, contamination, the teachers' saved responses."""

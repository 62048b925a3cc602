"""Questions to train on: format, importers, selection, contamination, saved responses."""

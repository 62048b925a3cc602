"""Everything that exists because of verl: configuration, engines, platforms, model families."""

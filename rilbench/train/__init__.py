"""RIL on verl: recipe in, checkpoint out. The only place that imports verl."""

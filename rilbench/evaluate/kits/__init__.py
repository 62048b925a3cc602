"""The evaluation kits. Each runs as a worker process in an environment of its own."""

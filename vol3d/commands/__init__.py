"""argv in, exit code out: thin over tasks, the only place that prints."""

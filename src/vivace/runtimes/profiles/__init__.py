"""Programs that run under their engine's own profiler, and tell operator by operator; one file for each profiler."""

"""Independent branches of a graph at the same time: which lane each operator runs on, and running them so."""

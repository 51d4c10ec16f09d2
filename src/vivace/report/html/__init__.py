"""What pages are made of, and that of an optimization: one file that opens from disk, drawn from a document alone."""

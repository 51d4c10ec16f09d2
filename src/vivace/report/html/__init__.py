"""The HTML report of an optimization: one file that opens from disk, drawn from the result's document alone."""

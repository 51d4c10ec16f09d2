"""Says what was found: the terminal block, live progress, and the document that results.json and --json hold."""

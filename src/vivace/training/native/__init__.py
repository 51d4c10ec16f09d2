"""A whole training step as C++ of its own: read from a recording, written out, compiled, and called many at a time."""

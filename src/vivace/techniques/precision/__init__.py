"""Fewer bits for numbers: 16-bit floats and 8-bit integers."""

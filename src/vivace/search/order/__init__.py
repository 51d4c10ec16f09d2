"""In which order plans are tried: what was seen so far, and what is tried where answers were refused, or may be."""

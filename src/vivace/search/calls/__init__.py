"""The calls that arms are timed with: which inputs, and how many samples in each."""

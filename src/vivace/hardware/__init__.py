"""Other silicon: a network as integers, the RTL that computes it, the proof of that, and what a chip makes of it."""

"""Other silicon than this machine has: a network as a design for a chip."""

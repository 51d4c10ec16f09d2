"""Models that are cut into stages: where they are cut, what passes through them, and what they draw."""

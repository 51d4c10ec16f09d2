"""The training step, what feeds it, how it is kept and resumed, and what proves that it is still the same."""

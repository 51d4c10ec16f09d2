"""Which requests are computed together, and when: pure decisions over an injected clock."""

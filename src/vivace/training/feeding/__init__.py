"""Batches made and sent ahead of the step that takes them."""

"""Operators of linear layers whose weights are stored as their non-zeros."""

"""Superposition, parallel evaluation and entanglement as circuits with a statistic that could fail."""

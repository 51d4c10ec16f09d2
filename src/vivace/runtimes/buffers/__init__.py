"""Calls through memory that stays with an engine."""

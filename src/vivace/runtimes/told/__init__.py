"""Operators told as others that there is C for."""

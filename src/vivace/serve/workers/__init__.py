"""Processes that hold the program and compute, and those who start, watch and restart them."""

"""Choosing: which plans to try, in which order, how long to race them, and which to confirm."""

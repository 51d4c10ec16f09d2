"""Techniques that act on what a training is fed with."""

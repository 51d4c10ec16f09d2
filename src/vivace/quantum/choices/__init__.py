"""Choosing a plan as a quadratic binary problem: exactly, by annealing, and by circuits on the simulator."""

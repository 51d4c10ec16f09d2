"""Layers and plans as quantum computations: circuits, simulation, resources, and what the words mean. No speed-up."""

"""Runtimes: capture a model as a flat program, store it in a folder, and load and run each form of it."""

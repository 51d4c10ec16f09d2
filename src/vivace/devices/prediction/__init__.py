"""Arithmetic that tells what work would take on hardware that is not here: PREDICTED, with intervals and refusals."""

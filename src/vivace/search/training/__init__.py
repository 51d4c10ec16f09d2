"""How a training is diagnosed, and which plan its steps are given."""

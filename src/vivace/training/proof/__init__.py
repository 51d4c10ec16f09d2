"""A step of a training proved again while the training runs."""

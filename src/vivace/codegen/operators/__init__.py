"""What tensors' operators are written down as: by their names, and the walk over a graph of them."""

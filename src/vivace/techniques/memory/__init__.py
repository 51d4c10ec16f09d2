"""How tensors lie in memory and what is kept about them."""

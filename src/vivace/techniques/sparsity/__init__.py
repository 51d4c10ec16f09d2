"""Less work by leaving weights out: smaller factors, fewer channels, zeros and the kernels that skip them."""

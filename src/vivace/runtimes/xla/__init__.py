"""Form XLA: the exported graph as StableHLO, which JAX compiles for whatever it finds: a CPU here, a TPU elsewhere."""

"""Data: the user's batches read once, split by hash into calibrate, select and confirm, and kept as safetensors."""

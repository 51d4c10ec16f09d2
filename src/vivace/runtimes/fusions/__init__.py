"""What an engine fused, listed by the names of the model's layers; one file for each engine that tells."""

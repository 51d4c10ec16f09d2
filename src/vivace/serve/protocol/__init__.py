"""The Open Inference Protocol v2 with binary tensors: bytes to tensors that fit the model, answers to bytes. Pure."""

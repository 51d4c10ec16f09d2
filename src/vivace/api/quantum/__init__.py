"""`vivace.quantum`: wires the quantum room with the model's layers, this machine's times and the report."""

"""What a computation would take on quantum machines: gates, shots, physical qubits, time. All of it PREDICTED."""

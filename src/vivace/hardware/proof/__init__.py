"""The RTL simulated, compiled, and compared with the golden model, vector by vector and cycle by cycle."""

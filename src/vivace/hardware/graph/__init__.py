"""From an exported program to integers: read, calibrate, quantize, and two executors that must agree bit for bit."""

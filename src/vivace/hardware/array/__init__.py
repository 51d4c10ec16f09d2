"""A systolic array as a chip: how long, at what energy and area, and its Verilog with the proof of both."""

"""Verilog from own templates: what each layer becomes, in how many cycles, and the files that a tool chain reads."""

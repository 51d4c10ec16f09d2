"""What `vivace synthesize` prints and writes: a design for an FPGA, an array of one's own, a program for a TPU."""

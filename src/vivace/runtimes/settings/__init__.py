"""What programs run under: switches around each call, and the heap of the process."""

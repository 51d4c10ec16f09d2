"""What hardware can do: this machine detected and measured, and arithmetic on such numbers."""

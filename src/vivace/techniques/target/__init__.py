"""Which device the program runs on."""

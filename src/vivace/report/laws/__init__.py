"""What parallel work gained, as measured and as laws have it."""

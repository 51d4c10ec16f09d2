"""Documents from outside: how text that somebody else may have written is read."""

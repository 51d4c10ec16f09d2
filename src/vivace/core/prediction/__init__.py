"""The words of a prediction: what it is about, how it is spread, what is answered."""

"""The end of a search: who is confirmed, how, and what is delivered."""

"""`predict`: a job counted, and what it would take elsewhere."""

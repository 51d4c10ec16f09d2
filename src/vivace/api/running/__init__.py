"""A training while it runs: its worker driven, what its folder keeps, and what becomes of a step that changes."""

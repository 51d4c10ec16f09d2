"""For authors of techniques: tiny models, the contract that every technique passes, and planted bad candidates."""

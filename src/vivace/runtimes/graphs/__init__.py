"""What graphs hold: their operators, layers, facts and work, before anything runs them."""

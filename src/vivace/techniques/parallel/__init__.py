"""How the work of one call is spread over cores."""

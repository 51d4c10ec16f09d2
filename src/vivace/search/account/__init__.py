"""What a search will cost, what each technique of its winner is worth, and when the winner has paid for itself."""

"""What a comparison may claim: its interval, its verdict, and what speaks against it."""

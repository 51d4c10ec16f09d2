"""The nouns of Vivace: frozen values that every other room speaks in. Standard library only."""

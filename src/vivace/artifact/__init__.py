"""Keeping: a folder that carries a program with its proof, is written whole or not at all, and verifies itself."""

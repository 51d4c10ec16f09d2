"""Serving: an artifact behind the Open Inference Protocol v2, and what drives such a server to its limits."""

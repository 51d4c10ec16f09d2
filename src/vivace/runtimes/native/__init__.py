"""A whole exported graph as one C++ program: read with one call's shapes, written out, compiled when it is loaded."""

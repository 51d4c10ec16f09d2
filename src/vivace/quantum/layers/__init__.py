"""A layer's inner products as circuits: encoding, tests of overlap, estimates with their shot noise."""

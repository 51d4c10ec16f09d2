"""Clients that drive a server: closed loop and Poisson open loop, and two servers compared in alternating slices."""

"""Singular values of every layer of a network."""

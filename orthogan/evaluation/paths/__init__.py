"""Lengths of paths through the latent space."""

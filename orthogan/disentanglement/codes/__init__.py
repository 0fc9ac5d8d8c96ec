"""Codes of images: encoders, factor classifiers and latent coordinates."""

"""orthogan: train GANs with well-conditioned layers, measure them, look inside their latent space."""

__version__ = "0.1.0"

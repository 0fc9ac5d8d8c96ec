"""Path lengths in the latent space."""

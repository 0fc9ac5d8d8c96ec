"""Where the codes of images come from: encoders, factor classifiers and latents."""

"""Disentanglement metrics, one per file: of codes and factors, of a source of images, or of a generator."""

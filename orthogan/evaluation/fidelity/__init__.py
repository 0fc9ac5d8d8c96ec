"""Metrics of generated against real images: FID, KID, precision, recall, Inception Score."""

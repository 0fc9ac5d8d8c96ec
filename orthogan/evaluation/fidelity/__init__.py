"""Scores of how near generated images are to real ones: FID, KID, precision, recall, Inception Score."""

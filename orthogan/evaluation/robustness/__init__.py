"""Robustness of classifiers against attacks and corruptions."""

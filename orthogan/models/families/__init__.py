"""Families of generators and discriminators: one per file, which registers both by one name."""

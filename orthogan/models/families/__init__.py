"""Families of generators and discriminators: one per file, which registers both under one name."""

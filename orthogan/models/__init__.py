"""Generators and discriminators, one family a file, and how they are built, saved and loaded."""

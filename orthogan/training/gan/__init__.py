"""The task ``gan``."""

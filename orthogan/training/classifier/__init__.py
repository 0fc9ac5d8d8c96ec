"""The task ``classifier``."""

"""The live page of ``orthogan explore``."""

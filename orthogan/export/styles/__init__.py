"""The styles of export, one per file."""

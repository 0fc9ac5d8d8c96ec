"""How images are stored: picture files, arrays, and bringing both to one size and color."""

"""Storage formats of images: image files and arrays, and their conversion to one size and color mode."""

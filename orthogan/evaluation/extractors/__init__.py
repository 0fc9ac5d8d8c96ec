"""Networks that compute the features of images, one per file."""

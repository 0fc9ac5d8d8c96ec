"""Image grids, text and plots."""

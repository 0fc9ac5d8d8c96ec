"""Image grids, text and plots: the only room that draws."""

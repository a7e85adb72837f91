"""Pixels and where they lie: windows, grids, tiles, regions of interest, labels and their pyramid. NumPy alone."""

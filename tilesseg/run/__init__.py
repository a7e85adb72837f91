"""A job carried out: prepared, handed to workers tile by tile, finished with its products."""

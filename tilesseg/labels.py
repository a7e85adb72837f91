"""The labels of a mask that are not classes. Classes are 0 … 253; nodata is never guessed, a hole never silent."""

FAILED = 254
"""Failed, or not yet processed: what a mask is full of at first."""
NODATA = 255
"""No data in the image."""
SCORE_STEPS = 250
"""A stored score of 1; FAILED and NODATA mean in scores what they mean in labels."""

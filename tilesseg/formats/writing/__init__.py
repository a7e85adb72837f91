"""What every writer shares: the content it is given, windows, compressed tiles, the preview."""

"""Whether and with which margin `crop` is exact for a network."""

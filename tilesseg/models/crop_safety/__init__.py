"""Whether `crop` is exact for a network, and with which margin."""

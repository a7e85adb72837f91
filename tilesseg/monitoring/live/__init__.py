"""The live state of a run, made of its events: scenes, tiles, workers, rates."""

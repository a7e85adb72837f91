"""Masks compared with the truth: counted tile by tile on workers, summed up as figures, tables and pictures."""

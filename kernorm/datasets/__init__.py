"""Data sets: prepared, cached, split, sealed, augmented, in batches."""

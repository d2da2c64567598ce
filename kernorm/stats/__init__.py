"""Scores of a split, intervals, comparisons of arms."""

"""Figures, charts, pages, progress."""

"""Exported models on the test split: thresholds, gate, robustness, report."""

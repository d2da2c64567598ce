"""Runtimes, validation, the registry of published models, TF Serving."""

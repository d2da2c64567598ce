"""Finds penalties, norm and batch size with KerasTuner, confirms the best on fresh seeds and exports it."""

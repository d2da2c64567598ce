"""SavedModels: card, signatures, warm-up, versions, export, other formats."""

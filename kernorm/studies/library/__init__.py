"""The studies that come with kernorm."""

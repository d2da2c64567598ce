"""What a run leaves: typed, versioned files."""

"""The studies that come with kernorm, one a file: `python -m kernorm.study NAME`."""

"""One run: trained, resumed, measured."""

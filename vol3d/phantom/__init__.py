"""The embedded synthetic data."""

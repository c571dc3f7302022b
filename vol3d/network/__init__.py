"""Networks by name and settings."""

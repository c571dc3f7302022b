"""Foreground-weighted cubes and their augmentation."""

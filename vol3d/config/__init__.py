"""Rooms' own settings composed into one tree, and the strict YAML reader."""

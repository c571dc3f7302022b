"""Losses, schedules, checkpoints and the loop that learns."""

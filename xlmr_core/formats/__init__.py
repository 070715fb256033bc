"""Checkpoint formats: one file a format."""

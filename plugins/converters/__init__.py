"""Converters: one representation of a finished scene to another."""

"""Measuring what a lift made."""

"""Karlo."""

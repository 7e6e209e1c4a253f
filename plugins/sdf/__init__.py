"""Signed distance fields, rendered as volumes."""

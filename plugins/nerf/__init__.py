"""Radiance fields: hash-grid geometry and the volume renderer."""

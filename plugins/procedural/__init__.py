"""Captioned procedural 3D objects: a scene language, exact distances, a fast CPU ray caster, captions and splits."""

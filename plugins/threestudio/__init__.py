"""Configurations of threestudio, turned into jobs."""

"""Optional capabilities, each one a folder that registers itself through its plugin.py."""

"""``new-plugin``: writes a small plugin that works and passes its own test as it is."""

from __future__ import annotations

from core.scaffold.writer import TEMPLATED_KINDS, Written, write_plugin

__all__ = ["TEMPLATED_KINDS", "Written", "write_plugin"]

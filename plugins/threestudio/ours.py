"""The job that is being written."""

from __future__ import annotations

from typing import Any


class Ours:
    """Nested values by dotted key, in the order in which they were put.

    Attributes:
        length: our length of one unit of theirs.
    """

    def __init__(self, length: float = 1.0) -> None:
        self.values: dict[str, Any] = {}
        self.length = length

    def put(self, key: str, value: Any) -> None:
        """Set a value; numbers in the key are items of a list that is there."""
        node: Any = self.values
        *path, last = key.split(".")
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value

    def get(self, key: str) -> Any:
        """What was put; None where nothing was."""
        node: Any = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        return node

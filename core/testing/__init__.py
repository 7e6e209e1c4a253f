"""Conformance tests: ``check_component(kind, name)`` says whether a component keeps its kind's contract."""

from __future__ import annotations

from core.testing.check import CheckFailed, check_component

__all__ = ["CheckFailed", "check_component"]

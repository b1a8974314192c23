"""Fixtures of the page (`tests/consoles.py`)."""

from consoles import page, served, stand

__all__ = ["page", "served", "stand"]

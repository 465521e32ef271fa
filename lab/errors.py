"""The one error that the lab shows to its user."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can act on. The message says what failed and what to do about it."""

"""What all tests share."""

from __future__ import annotations

from comparing import suite

__all__ = ["suite"]

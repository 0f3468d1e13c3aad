"""Errors whose text is meant for the person at the microscope."""

from __future__ import annotations


class FocusFusionError(ValueError):
    """Something about the input or the request is wrong; the text says what to do."""


class Cancelled(Exception):
    """The caller asked the run to stop; nothing that looks finished was left behind."""

"""Timings of foleylib; see README.md."""

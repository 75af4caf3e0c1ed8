"""Machines of Google Compute Engine."""

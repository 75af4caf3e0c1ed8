"""Nodes as jobs of PBS."""

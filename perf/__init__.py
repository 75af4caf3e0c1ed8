"""Measurements of burla beside its peers, each pair in one run."""

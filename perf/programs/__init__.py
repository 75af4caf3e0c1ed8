"""Small programs of other systems, and what they become here; see compare.py."""

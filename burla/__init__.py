"""Run a Python function on every input, on many computers at once, as if it ran here."""

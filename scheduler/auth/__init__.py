"""Who may connect, as what, and what is kept of it."""

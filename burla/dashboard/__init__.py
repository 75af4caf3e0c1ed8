"""`burla dashboard`: a cluster as pages, served on loopback by the user's own process."""

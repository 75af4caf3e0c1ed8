"""The `burla` commands, and the views, reports and failures that they print."""

"""What of the caller's programs goes along with a job: own modules, packages, files."""

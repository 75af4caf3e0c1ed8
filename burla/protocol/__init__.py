"""The agreement between all programs: messages, how they are framed, and how sockets are made."""

VERSION = "0.1.0"  # of burla; pyproject.toml reads it from here

"""The agreement between all programs: messages, how they are framed, and how sockets are made."""

"""How programs reach each other: addresses, keys, sockets, and a single question."""

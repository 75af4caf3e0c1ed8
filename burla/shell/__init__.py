"""What carries out the client's core: the I/O thread, the caller's thread, the printer."""

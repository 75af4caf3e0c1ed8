"""What carries out the scheduler's core: the ROUTER, and the PUB channel for output."""

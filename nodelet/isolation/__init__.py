"""How far a lease can be shut in on this machine, and how it is done."""

"""Machines reached by SSH, as OpenSSH's configuration has them."""

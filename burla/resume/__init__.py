"""Results kept under a name, so that a script that is run again calls only what is new."""

"""What makes a machine a node: our wheel, a script, and the steps that are carried out there."""

"""What the pages show, made from what a scheduler says. Pure."""

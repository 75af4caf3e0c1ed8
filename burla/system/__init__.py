"""What a process of ours needs of its machine: its owner, its daemon's manners, its paths."""

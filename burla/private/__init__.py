"""The program that is the private cluster of a process: a scheduler and a nodelet in one loop."""

"""What carries out the nodelet's core: the DEALER, the workers' pipes, the clock."""

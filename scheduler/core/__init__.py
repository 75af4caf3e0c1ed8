"""The pure core of the scheduler: jobs, nodes, the leases between them, and all policy."""

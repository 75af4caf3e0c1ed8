"""The scheduler: per-job queues, leases, and the ROUTER that all others talk to."""

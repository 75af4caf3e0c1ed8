"""The pure core of provisioning: facts in, steps out; wanted and observed machines, a plan out."""

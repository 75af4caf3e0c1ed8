"""The pure core of the client: one map call, and the connection that it runs over."""

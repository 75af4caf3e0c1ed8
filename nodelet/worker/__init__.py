"""What runs in a supervisor, a zygote or a worker: neither zmq nor asyncio."""

"""One big value over loopback TCP with keys, each way, beside a plain CURVE pipe of two processes.

The pipe is what libzmq and libsodium can do here: it encrypts once. A value of ours is encrypted
twice, to the scheduler and from it, and a result is sealed and looked at from end to end besides.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import zmq

from .clusters import Cluster, keyed_cluster
from .functions import give, size
from .measure import Options, Series, in_turn, summary, timed
from .peers import BURLA
from .processes import forget_peak, peak_bytes, rss_bytes

MEGABYTES = 512
FRAME_BYTES = 1 << 20
PIPE = "a CURVE pipe"
HWM = 64  # frames: what a window of ours has, twice


def measure(options: Options) -> Iterator[Series]:
    """Yield one series for each way."""
    from burla import remote_parallel_map

    count = options.scaled(MEGABYTES) << 20
    value = os.urandom(count)
    with keyed_cluster(1) as made, pipe() as through:

        def run(function: Callable[..., object], given: object, expected: object) -> float:
            seconds, results = timed(lambda: remote_parallel_map(function, [given], spinner=False))
            assert results == [expected]
            return seconds

        remote_parallel_map(size, [b""], spinner=False)  # the first call waits for the node
        ways = (
            ("result", partial(run, give, count, bytes(count))),
            ("input", partial(run, size, value, count)),
        )
        for way, ours in ways:
            pids = {"scheduler": made.scheduler.pid, "nodelet": made.nodelets[0].pid}
            before = {name: rss_bytes(pid) for name, pid in pids.items()}
            for pid in pids.values():
                forget_peak(pid)
            series = in_turn(
                Series(f"wire/{way}"), options.rounds, {BURLA: ours, PIPE: partial(through, count)}
            )
            rates = (
                f"{name} {count / 1e6 / summary(seconds).median:,.0f}"
                for name, seconds in series.seconds.items()
            )
            series.notes.append(f"{count >> 20} MiB over TCP with keys; MB/s: " + "; ".join(rates))
            series.notes.append(_memory(made, pids, before))
            yield series


def _memory(made: Cluster, pids: dict[str, int], before: dict[str, int]) -> str:
    assert made.scheduler.poll() is None
    more = (f"{name} {(peak_bytes(pid) - before[name]) / 1e6:,.0f}" for name, pid in pids.items())
    return "MB more in memory, at most: " + "; ".join(more)


@contextmanager
def pipe() -> Iterator[Callable[[int], float]]:
    """Run a process that sends; yield what has it send so many bytes, and returns the seconds."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    public, secret = zmq.curve_keypair()
    router.setsockopt(zmq.RCVHWM, HWM)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, secret)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    spawn = multiprocessing.get_context("spawn")
    sender = spawn.Process(target=_send, args=(f"tcp://127.0.0.1:{port}", public), daemon=True)
    sender.start()
    try:
        peer, _ = router.recv_multipart()

        def through(count: int) -> float:
            def take() -> None:
                router.send_multipart([peer, b"%d" % count])
                left = count
                while left > 0:
                    _, frame = router.recv_multipart(copy=False)
                    left -= len(frame)

            return timed(take)[0]

        yield through
        router.send_multipart([peer, b"0"])
        sender.join()
    finally:
        sender.kill()
        router.close(0)
        context.term()


def _send(endpoint: str, server: bytes) -> None:
    """Send what is asked for, until that is nothing."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    public, secret = zmq.curve_keypair()
    dealer.setsockopt(zmq.SNDHWM, HWM)
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, public)
    dealer.setsockopt(zmq.CURVE_SECRETKEY, secret)
    dealer.setsockopt(zmq.CURVE_SERVERKEY, server)
    dealer.connect(endpoint)
    dealer.send(b"here")
    frame = os.urandom(FRAME_BYTES)
    while count := int(dealer.recv()):
        for at in range(0, count, FRAME_BYTES):
            dealer.send(frame[: count - at], copy=False)
    dealer.close(0)
    context.term()

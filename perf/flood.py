"""A client without a caller: it sends inputs as fast as its window allows and counts what is done.

It speaks as burla/core/session.py does with the list form, but opens nothing that comes back.
"""

import os
import sys
import time

import msgspec
import zmq

from burla.core.acks import ACK_MESSAGES
from burla.protocol import VERSION, messages as m
from burla.protocol.ranges import Ranges
from burla.transport import sockets
from burla.values.leaves import cut_batches

from .simulated import done_in

BATCH_INPUTS = 1 << 16  # as burla.values.leaves makes them in the middle of a job
BEAT_S = 1.0
WAIT_MS = 20  # for a message, then the clock is looked at
TAKE_MAX = 256  # messages in a row, then inputs are sent


class Flood:
    """One job of `total` inputs."""

    def __init__(self, address: str, total: int) -> None:
        """Connect and open the job."""
        self.total = total
        self.done = Ranges()
        self.taken = self.sent = 0  # messages
        self.failed = ""  # what the scheduler said that ended it
        self._job, self._fed, self._batch = os.urandom(16), 0, 0
        self._acked: dict[bytes, int] = {}
        # The middle of a real list: the same leaves again and again, but under other numbers.
        *_, batch = cut_batches(list(range(4 * BATCH_INPUTS)))
        self._leaves = batch.leaves
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = sockets.make_socket(self._context, zmq.DEALER)
        self._dealer.setsockopt(zmq.IMMEDIATE, 0)  # it is the first and only connection
        self._dealer.connect(address)
        self._outbox = sockets.Outbox()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(m.SchedulerToClient).decode
        self._beat_s = time.monotonic()
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        user = ("perf", "localhost")
        self._say(m.ClientHello(m.PROTOCOL, VERSION, python, os.urandom(16), *user))
        job = m.OpenJob(
            job=self._job,
            topic=os.urandom(16),
            name="flood",
            func_cpu=1,
            func_ram=None,
            max_parallelism=None,
            unpack=False,
            environment=b"",
        )
        self._say(job, [b"function"])

    def close(self) -> None:
        """Close the job and the connection."""
        self._say(m.CloseJob(self._job))
        self._dealer.close(linger=200)
        self._context.term()

    def run_until(self, end_s: float) -> None:
        """Feed and take until the clock says `end_s`, all is done, or it has `failed`."""
        while (now_s := time.monotonic()) < end_s and not self.failed:
            if self.done.total == self.total:
                return
            if now_s >= self._beat_s:
                self._beat_s = now_s + BEAT_S
                self._say(m.Heartbeat())
            self._outbox.flush(self._dealer)
            self._feed()
            self._dealer.poll(0 if self._may_feed() else WAIT_MS)
            self._take()

    def _may_feed(self) -> bool:
        open_inputs = self._fed - self.done.total
        wanted = self._fed < self.total and not self._outbox
        return wanted and open_inputs + BATCH_INPUTS <= m.JOB_INPUT_COUNT

    def _feed(self) -> None:
        if not self._may_feed():
            return
        start = self._fed
        leaves: list[m.Leaf] = []
        payload: list[bytes] = []
        for leaf in self._leaves:
            count = min(leaf.count, self.total - self._fed)
            if count:
                leaves.append(m.Leaf(self._batch, self._fed, count, len(leaf.frames)))
                payload += map(bytes, leaf.frames)
                self._fed += count
        inputs = m.Inputs(job=self._job, batch=self._batch, start=start, leaves=tuple(leaves))
        self._say(inputs, payload)
        self._batch += 1
        if self._fed == self.total:
            self._say(m.InputsEnd(self._job, self.total))

    def _take(self) -> None:
        for _ in range(TAKE_MAX):
            try:
                header, *_ = self._dealer.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self.taken += 1
            said: m.Message = self._decode(header)
            match said:
                case m.JobOutcomes():
                    for lo, hi in done_in(said):
                        assert self.done.add(lo, hi) == hi - lo, "an outcome came twice"
                    assert said.seq == self._acked.get(said.lease, 0) + 1, "out of order"
                    self._acked[said.lease] = said.seq
                    if said.seq % ACK_MESSAGES == 0:
                        self._say(m.AckOutcomes(said.lease, said.seq))
                case m.JobFailed() | m.Refused() | m.LeaseLost() | m.HelloRequired():
                    self.failed = f"the scheduler says {said}"
                case _:
                    pass

    def _say(self, message: m.Message, payload: list[bytes] | None = None) -> None:
        self.sent += 1
        frames = [self._encode(message), *(payload or ())]
        if self._outbox or not sockets.send(self._dealer, frames):
            self._outbox.put(frames)  # who waits to send does not read, and two such wait for ever

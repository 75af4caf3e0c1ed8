"""The socket that a cluster's jobs have their output by, and the topics that are followed on it.

To subscribe and unsubscribe costs the scheduler half of what a small job does, so the topic of a
job that is over is given to the next one.
"""

import logging
from collections.abc import Iterator

import zmq

from burla.core.session import Session
from burla.protocol.codec import WireError, decode
from burla.protocol.messages import JobOutput
from burla.transport.addresses import publisher_endpoint
from burla.transport.keys import ClientCurve
from burla.transport.sockets import make_socket, take

IDLE_TOPICS_MAX = 8  # of jobs that are over: still followed, for the next ones of a loop of maps

log = logging.getLogger(__name__)


class OutputChannel:
    """What is published for the jobs of one client."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, curve: ClientCurve | None
    ) -> None:
        """Prepare to follow the publisher of the scheduler at `endpoint`."""
        self.socket = make_socket(context, zmq.SUB, curve)
        self.topics: dict[bytes, bytes] = {}  # by job
        self._endpoint = endpoint
        self._idle_topics: list[bytes] = []
        self._publisher = ""
        self._server = b"" if curve is None else curve.server

    def connect(self, publisher: str, server: bytes) -> None:
        """Follow this publisher, which has this key, and no other any more."""
        publisher = publisher_endpoint(publisher, self._endpoint)
        if publisher == self._publisher and server == self._server:
            return  # libzmq reconnects by itself, and says the topics again
        try:
            if self._publisher:
                self.socket.disconnect(self._publisher)
            if server:
                self.socket.setsockopt(zmq.CURVE_SERVERKEY, server)
            self._server = server
            self.socket.connect(publisher)
            self._publisher = publisher
        except zmq.ZMQError as error:
            log.warning("no output can come from %r: %s", publisher, error)

    def follow(self, session: Session) -> None:
        """Follow the topic of a job, or give it one that was an earlier job's and is followed."""
        if self._idle_topics:
            session.topic = self._idle_topics.pop()
        else:
            self.socket.setsockopt(zmq.SUBSCRIBE, session.topic)
        self.topics[session.id] = session.topic

    def leave(self, job: bytes) -> None:
        """Keep the topic of a job that is over for another one."""
        self._idle_topics.append(self.topics.pop(job))
        if len(self._idle_topics) > IDLE_TOPICS_MAX:
            self.socket.setsockopt(zmq.UNSUBSCRIBE, self._idle_topics.pop(0))

    def take(self) -> Iterator[tuple[JobOutput, list[bytes]]]:
        """Yield what was published for the jobs that are followed, as much as `sockets.take`."""
        for topic, *frames in take(self.socket):
            try:
                message, chunks = decode(frames, JobOutput)
            except WireError as error:
                log.warning("ignored output from %s: %s", self._publisher, error)
                continue
            if self.topics.get(message.job) == topic:
                yield message, chunks

"""Row of the security table: words of peers that would speak to a terminal, or begin a line."""

import os
from pathlib import Path

from opening import client_hello, node_hello, open_job
from stage import PYTHON, stage

from burla.protocol import messages as m
from burla.scheduler.core.admission import Role

EVIL = "x\x1b]0;title\x07\r\nforged\x9b2J\u202e\u2028"
RAW = [c.encode() for c in "\x1b\x07\r\x9b\u202e\u2028"]  # in UTF-8, as on the wire and in files


def evil_words(directory: Path) -> None:
    """What a client and a node call themselves reaches no log, and nobody else, as they said it."""
    with stage(directory) as at:
        anna, _ = at.client("anna")
        node = at.peer(at.ring.make(Role.NODE, "raw"))
        words = {"python": PYTHON, "name": EVIL, "isolation": EVIL, "version": EVIL, "cpus": 1}
        node.say(node_hello(os.urandom(16), **words))
        node.hear(m.Welcome)
        bert = at.peer(at.ring.make(Role.CLIENT, "bert"))
        bert.say(client_hello(bert.session, python=PYTHON, user=EVIL, host=EVIL, version=EVIL))
        bert.hear(m.Welcome)
        job = os.urandom(16)
        bert.say(open_job(job, name=EVIL), [b"function"])
        bert.say(client_hello(os.urandom(16), python=PYTHON, protocol=1, version=EVIL))
        bert.fence()
        anna.say(m.ListNodes())
        heard: list[bytes] = []
        while not any(b"Nodes" in frame[:8] for frame in heard):
            assert anna.socket.poll(5000), "no answer"
            heard += anna.socket.recv_multipart()
        anna.open(os.urandom(16))
        anna.fence()
        written = [path.read_bytes() for path in directory.rglob("*.log")]
        assert any(b"forged" in frame for frame in heard), "the node is not listed"
        assert any(b"forged" in log for log in written), "nothing was logged"
        for text in (*heard, *written):
            assert not any(raw in text for raw in RAW), text
        for log in written:
            assert not any(line.startswith(b"forged") for line in log.splitlines())

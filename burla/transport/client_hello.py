"""The first word on a connection of a client: who it is."""

import os
import socket
import sys

from burla.protocol import VERSION, messages as m
from burla.protocol.detach_messages import ADOPT
from burla.protocol.key_messages import KEYS


def new_hello() -> m.ClientHello:
    """Return the first word of a new session of this process."""
    return m.ClientHello(
        protocol=m.PROTOCOL,
        version=VERSION,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        session=os.urandom(16),
        user=user_name()[:256],
        host=socket.gethostname()[:256],
        features=(KEYS, ADOPT),
    )


def user_name() -> str:
    """Return the user's name, or number: there may be no environment and no passwd entry."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if user := os.environ.get(name):
            return user
    if sys.platform == "win32":
        return "unknown"
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError, OSError):
        return str(os.getuid())

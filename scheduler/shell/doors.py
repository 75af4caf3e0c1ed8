"""What a scheduler with keys has more than one without. A private cluster loads none of it."""

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from burla.protocol.key_messages import ServerKey
from burla.scheduler.auth import server_key
from burla.scheduler.auth.authorizer import OUTPUT_DOMAIN, ROUTER_DOMAIN, Authorizer
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.auth.quota_store import follow
from burla.scheduler.auth.zap import ZapHandler
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.transport.keys import ServerCurve


@dataclass(frozen=True)
class Doors:
    """What a scheduler with keys has more than one without."""

    authorizer: Authorizer
    zap: ZapHandler
    follow_quotas: Callable[[Quotas, Callable[[Tenants], None]], Coroutine[Any, Any, None]]
    follow_key: Callable[[Callable[[ServerKey], None]], Coroutine[Any, Any, None]]
    router: ServerCurve
    output: ServerCurve


def doors_of(
    keys: Path, context: zmq.Context[zmq.Socket[bytes]], ends: contextlib.ExitStack
) -> Doors:
    """Read the keys, and bind the ZAP handler, which must be there before any socket asks it."""
    key_store = KeyStore(keys)
    server_key.take(key_store)
    pair = key_store.server_pair()
    authorizer = Authorizer(key_store)
    ends.callback(authorizer.close)
    zap = ZapHandler(context, authorizer.admit)
    ends.callback(zap.close)
    router, output = ServerCurve(pair, ROUTER_DOMAIN), ServerCurve(pair, OUTPUT_DOMAIN)
    follow_quotas, follow_key = partial(follow, key_store), partial(server_key.follow, key_store)
    return Doors(authorizer, zap, follow_quotas, follow_key, router, output)

"""The keys of this user for a connection to a cluster, without the rest of a client."""

import os

from burla.config import server_keys_path, user_key_path
from burla.errors import BadSetting, NotAuthorised
from burla.transport.addresses import take_apart
from burla.transport.keys import ClientCurve, KeyFileError, KeyPair, load_pair
from burla.transport.server_keys import ServerKeys


def curve_for(address: str) -> ClientCurve | None:
    """Return the keys for a connection to `address`; None: it goes without.

    Raises:
        NotAuthorised: the user has no key yet.
        BadSetting: the key lies open to others.
    """
    where = take_apart(address)
    if where.key is None:
        return None
    return ClientCurve(_user_pair(address), where.key, ServerKeys(server_keys_path()))


def _user_pair(address: str) -> KeyPair:
    path = user_key_path()
    if path is None or not os.path.lexists(path):
        where = path or "there is no HOME to look for it in"
        raise NotAuthorised(f"you have no key yet ({where}): run `burla login '{address}'` once")
    try:
        return load_pair(path)
    except KeyFileError as error:
        raise BadSetting(
            "the user's key", path, f"a secret key that only this user can read; {error}"
        ) from None

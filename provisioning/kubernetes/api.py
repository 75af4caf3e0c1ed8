"""Calls of Kubernetes' API: to the cluster that is meant, and again when it is busy."""

import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
from lightkube import ApiError, Client, KubeConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, SingleConfig
from lightkube.config.models import User
from lightkube.core import decoders
from lightkube.core.exceptions import ConfigError
from lightkube.models import meta_v1
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Pod, Secret
from msgspec.structs import replace

from burla.provisioning.core.capacity import BUSY_STATUS, MISSING, Answer, Refusal
from burla.provisioning.core.machines import BadConfig, ProvisioningError, printable
from burla.provisioning.provider_settings import IN_CLUSTER, KubernetesConfig

T = TypeVar("T")
KINDS = (Job, ConfigMap, Event, Namespace, Pod, Secret)  # all that is asked for
CALL_S = 30.0  # one HTTP request
CONNECT_S = 5.0  # an address that nobody has is told within a minute, with all tries
TRIES = 6  # of a call that is answered "busy"; waits add up to half a minute
PAUSE_S = 1.0  # before the second try; doubles
PAUSE_MAX_S = 60.0  # whatever the answer says
PAGE = 500  # of a list
THERE = 409
GONE = 410
NOT_KNOWN, FORBIDDEN = 401, 403
QUOTA = "exceeded quota"  # in what a 403 says
TERMINATED = "because it is being terminated"  # likewise, of a namespace
EXEC = "client.authentication.k8s.io/"  # versions of this differ in what we do not use
_turn = threading.Lock()
LOGIN = "log in again, as for kubectl (`kubectl auth whoami` shows whether it works)"


class Refused(ProvisioningError):
    """Kubernetes said no."""

    def __init__(self, answer: Answer) -> None:
        """Keep what the refusal means."""
        super().__init__(answer.text)
        self.answer = answer


class KubeApi:
    """A client of lightkube, in one namespace."""

    def __init__(
        self, told: KubernetesConfig, namespace: str, pause: Callable[[float], None]
    ) -> None:
        """Find the cluster, without connecting to it.

        Args:
            told: says which cluster it is.
            namespace: of all that is asked for.
            pause: waits between tries.

        Raises:
            BadConfig: there is no such cluster in the kubeconfig, or no kubeconfig.
        """
        self.namespace, self._pause = namespace, pause
        _learn_types()
        try:
            found = _usable(_config(told))
            self.server = found.cluster.server
            self.told = _settled(told, found)  # which it is from now on
            waits = httpx2.Timeout(CALL_S, connect=CONNECT_S)
            self.client = Client(config=found, namespace=namespace, timeout=waits, trust_env=True)
            weakref.finalize(self, self.client.close)
        except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
            raise BadConfig(
                f"cannot tell which Kubernetes is meant: {_words(error)}. Set kubernetes.kubeconfig"
                " and kubernetes.context (--context), or KUBECONFIG"
            ) from None

    def call(self, call: Callable[[Client], T]) -> T:
        """Return what a call answers; one that is answered "busy" is made again, the same.

        Raises:
            Refused: another no, or still busy after `TRIES`.
        """
        pause_s = PAUSE_S
        for left in reversed(range(TRIES)):
            least_s = 0.0
            try:
                return call(self.client)
            except ApiError as error:
                answer = _answer(error.status.code or 0, error.status.message or "")
                least_s = _retry_after_s(error.response)
            except httpx2.HTTPStatusError as error:
                answer = _answer(error.response.status_code, str(error))
                least_s = _retry_after_s(error.response)
            except (httpx2.HTTPError, ConnectionError) as error:
                text = f"Kubernetes at {self.server} does not answer: {_words(error)}"
                # who is not who it should be is that a second later, too
                refusal = Refusal.NO if _is_of_certificate(error) else Refusal.BUSY
                answer = Answer(refusal, text)
            except (ConfigError, OSError) as error:  # of whoever gives out credentials
                answer = Answer(Refusal.NO, f"no credentials for Kubernetes: {_words(error)}")
            except (KeyError, ValueError, msgspec.MsgspecError) as error:
                text = f"what answers at {self.server} is no Kubernetes: {_words(error)}"
                answer = Answer(Refusal.NO, text)
            if answer.refusal is not Refusal.BUSY or not left:
                raise Refused(answer)
            self._pause(min(max(pause_s, least_s), PAUSE_MAX_S))
            pause_s *= 2
        raise AssertionError  # the last round returns or raises

    def create(self, made: Any) -> Any:
        """Return what was made; made already, by a try whose answer was lost, it is that."""
        for left in reversed(range(TRIES)):
            try:
                return self.call(lambda client: client.create(made))
            except Refused as refused:
                if refused.answer.status != THERE:
                    raise
            try:
                return self.get(type(made), made.metadata.name)
            except Refused as refused:  # it was just going, or others changed the quota meanwhile
                if refused.answer.status != MISSING or not left:
                    raise
                self._pause(PAUSE_S)
        raise AssertionError  # the last round returns or raises

    def get(self, kind: Any, name: str) -> Any:
        """Return one object."""
        return self.call(lambda client: client.get(kind, name))

    def list(self, kind: Any, labels: dict[str, str], fields: dict[str, str] | None = None) -> Any:
        """Return all objects that have these labels; a list that got too old is begun again."""
        more: Any = {"fields": fields} if fields else {}
        wanted: Any = labels
        for left in reversed(range(TRIES)):
            try:
                return self.call(
                    lambda client: list(client.list(kind, labels=wanted, chunk_size=PAGE, **more))
                )
            except Refused as refused:
                if refused.answer.status != GONE or not left:
                    raise
        raise AssertionError  # as above

    def delete(self, kind: Any, name: str, **how: Any) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            self.call(lambda client: client.delete(kind, name, **how))
        except Refused as refused:
            if refused.answer.status != MISSING:
                raise


def settled(told: KubernetesConfig) -> KubernetesConfig:
    """Return settings that lead to the cluster that is meant now, whatever is meant later.

    Raises:
        BadConfig: it cannot be told which one is.
    """
    return KubeApi(told, told.namespace or "default", time.sleep).told


@cache
def _types() -> None:
    for kind in KINDS:
        decoders.decode_list(b'{"items": []}', kind)
    meta_v1.Status.from_dict({})


def _learn_types() -> None:
    """Let msgspec learn the types of lightkube.

    It does so when it meets one, and crashes if two threads meet types that refer to each other.
    """
    with _turn:
        _types()


def _answer(status: int, message: str) -> Answer:
    text = f"{status} {printable(message)}".strip()
    if status == FORBIDDEN and QUOTA in message:
        return Answer(Refusal.QUOTA, f"the quota of the namespace is used up: {text}", status)
    if status == FORBIDDEN and TERMINATED in message:
        text = f"{text}: wait until it is gone, or set kubernetes.namespace to another one"
    elif status == FORBIDDEN:
        text = f"{text}: you need a role there that may do so; docs/clusters.md has one"
    if status == NOT_KNOWN:
        text = f"Kubernetes does not know you ({text}): {LOGIN}"
    busy = status in BUSY_STATUS
    return Answer(Refusal.BUSY if busy else Refusal.NO, text, status)


def _config(told: KubernetesConfig) -> SingleConfig:
    """Return which cluster is meant; see `KubernetesConfig`."""
    context = told.context or None
    variable = os.environ.get("KUBECONFIG", "")
    is_told = told.kubeconfig or (context and context != IN_CLUSTER)
    inside = context == IN_CLUSTER or (not variable and Path(SERVICE_ACCOUNT, "token").exists())
    if inside and not is_told:
        found = KubeConfig.from_service_account(SERVICE_ACCOUNT).get()
        assert found is not None, "it has one context"
        return found
    named = told.kubeconfig or variable or DEFAULT_KUBECONFIG
    files = [Path(name).expanduser() for name in named.split(os.pathsep) if name]
    there = [KubeConfig.from_file(file) for file in files if file.is_file()]
    if not there:
        raise ConfigError(f"there is no file {named}")
    for config in there:  # each is whole, as files are that somebody gave out
        name = context or config.current_context
        if name is not None and name in config.contexts:
            return _found(config, name)
    contexts = ", ".join(sorted(name for config in there for name in config.contexts)) or "none"
    which = f"no context {context!r}" if context else "no current-context"
    raise ConfigError(f"{named} has {which} (it has: {contexts})")


def _found(config: KubeConfig, context: str) -> SingleConfig:
    try:
        found = config.get(context)
    except KeyError as error:
        text = f"{config.fname}: the context {context!r} names {error}, of which nothing is there"
        raise ConfigError(text) from None
    assert found is not None, "there is no default"
    return found


def _settled(told: KubernetesConfig, found: SingleConfig) -> KubernetesConfig:
    """Return settings that lead to this cluster whatever kubectl's current context is."""
    if found.fname is None:
        return replace(told, context=IN_CLUSTER)
    return replace(told, kubeconfig=str(found.fname.absolute()), context=found.context_name)


def _usable(found: SingleConfig) -> SingleConfig:
    """Return a cluster as lightkube takes it."""
    user = found.user or User()
    if user.exec is not None and user.exec.apiVersion == f"{EXEC}v1":
        user.exec.apiVersion = f"{EXEC}v1beta1"
    return found._replace(user=user)


def _retry_after_s(response: httpx2.Response | None) -> float:
    """Return for how long the server asks not to be asked; it says so in whole seconds."""
    said = "" if response is None else response.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else 0.0


def _is_of_certificate(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _words(error: BaseException) -> str:
    return printable(str(error)) or type(error).__name__

"""Calls of the Compute Engine library: with the right options, and again when it is busy.

The library's own convenience, `insert()`, polls by a second client that ignores `client_options`;
so `insert_unary` and the operations client here are what is used.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import requests.exceptions as network
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError, TransportError

from burla.provisioning.core.capacity import Answer, Refusal, classify
from burla.provisioning.core.machines import ProvisioningError

from .library import InstancesClient, MachineTypesClient, ZoneOperationsClient

T = TypeVar("T")
CALL_S = 60.0  # one HTTP request
TRIES = 6  # of a call that is answered "busy"; waits add up to half a minute
PAUSE_S = 1.0  # before the second try; doubles


class Refused(ProvisioningError):
    """Compute Engine said no."""

    def __init__(self, answer: Answer) -> None:
        """Keep what the refusal means."""
        super().__init__(answer.text)
        self.answer = answer


class ComputeApi:
    """The clients of the library that we need, all with the same options."""

    def __init__(self, endpoint: str, pause: Callable[[float], None]) -> None:
        """Connect, without waiting for it.

        Args:
            endpoint: stands in for the real service, and asks for no credentials; empty: the real
                one, with the user's own credentials.
            pause: waits between tries.
        """
        told: dict[str, Any] = {}
        if endpoint:
            told["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
            told["client_options"] = ClientOptions(api_endpoint=endpoint)
        self.instances = InstancesClient(**told)
        self.operations = ZoneOperationsClient(**told)
        self.machine_types = MachineTypesClient(**told)
        self._pause = pause

    def call(self, call: Callable[[], T]) -> T:
        """Return what a call answers; one that is answered "busy" is made again, the same.

        Raises:
            Refused: another no, or still busy after `TRIES`.
        """
        pause_s = PAUSE_S
        for left in reversed(range(TRIES)):
            try:
                return call()
            except exceptions.GoogleAPICallError as error:
                answer = _answer(error)
            except TransportError as error:  # of the service that gives out credentials
                answer = Answer(Refusal.BUSY, f"cannot get credentials right now: {error}")
            except GoogleAuthError as error:
                answer = Answer(
                    Refusal.NO,
                    f"cannot get credentials (`gcloud auth application-default login`?): {error}",
                )
            except (exceptions.RetryError, network.RequestException, ConnectionError) as error:
                answer = Answer(Refusal.BUSY, f"the connection broke: {error}")
            if answer.refusal is not Refusal.BUSY or not left:
                raise Refused(answer)
            self._pause(pause_s)
            pause_s *= 2
        raise AssertionError  # the last round returns or raises


def _answer(error: Any) -> Answer:
    """Return what an HTTP error of the library means."""
    status = int(error.code or 0)
    reasons = [e.get("reason", "") for e in error.errors or () if isinstance(e, dict)]
    answer = classify(status, next(iter(reasons), ""), str(error.message or ""))
    return Answer(answer.refusal, f"{status} {answer.text}", status)

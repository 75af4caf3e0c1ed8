"""Figures for Prometheus, over HTTP, by a thread of its own: it cannot hold up the loop.

The loop publishes figures now and then, a struct that nobody changes; the thread makes text of the
last ones when somebody asks. One at a time, and whoever asks slowly is hung up on.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import TCPServer
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from burla.protocol.job_messages import BUCKETS, bucket_end_s
from burla.scheduler.config import ConfigError
from burla.scheduler.core.figures import Figures

ANSWER_S = 5.0  # for who asks to send the question, and to take the answer
EVERY_S = 2.0  # between two figures
BUCKET_STEP = 3  # of eight times the duration: ten buckets from 16 us to 36 minutes
FIRST_BUCKET, LAST_BUCKET = 4, 31


class _Handler(WSGIRequestHandler):
    timeout = ANSWER_S

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: somebody asks every few seconds."""


class Metrics(Collector):
    """The page of figures."""

    def __init__(
        self,
        address: tuple[str, int],
        directory: Path,
        version: str,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Serve at an address.

        Args:
            address: host and port; port 0 picks one.
            directory: whose disk is told about.
            version: of burla.
            clock_s: Unix time.

        Raises:
            ConfigError: somebody else listens there, or this machine has no such address.
        """
        self._directory, self._version, self._clock_s = directory, version, clock_s
        self._started_s = clock_s()
        self._figures: Figures | None = None
        self._told_s = 0.0
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        host, port = address
        try:
            app, kind = make_wsgi_app(registry), _server_class(host)
            self._server = make_server(host, port, app, kind, _Handler)
        except OSError as error:
            why = f"--metrics {host}:{port}: {error.strerror or error}"
            remedy = "pass a port that is free, and an address that this machine has"
            raise ConfigError(f"{why}; {remedy}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="burla-metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(ANSWER_S)

    def is_due(self) -> bool:
        """Return whether the last figures are old."""
        return self._clock_s() >= self._told_s + EVERY_S

    def publish(self, figures: Figures) -> None:
        """Have these shown from now on."""
        self._figures, self._told_s = figures, self._clock_s()

    def collect(self) -> Iterable[Metric]:
        """Return the figures as metrics; called in the thread that serves."""
        info = InfoMetricFamily("burla_build", "The version of burla that the scheduler runs.")
        info.add_metric((), {"version": self._version})
        yield info
        yield _gauge("start_time_seconds", "Unix time at which it began.", self._started_s)
        figures = self._figures
        if figures is None:
            return
        yield _gauge(
            "figures_time_seconds",
            "Unix time of these figures; they are two seconds old at most while it is well.",
            self._told_s,
        )
        yield from _jobs_and_calls(figures)
        yield from _nodes_and_rest(figures)
        try:
            free = shutil.disk_usage(self._directory).free
        except OSError:
            return
        yield _gauge("disk_free_bytes", "Free where keys, logs and records lie.", free)


def _server_class(host: str) -> type[WSGIServer]:
    import socket

    class Server(WSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def server_bind(self) -> None:
            """Bind without a look at names, which may take seconds."""
            TCPServer.server_bind(self)
            self.server_name, self.server_port = str(host), int(self.server_address[1])
            self.setup_environ()

    return Server


def _jobs_and_calls(figures: Figures) -> Iterable[Metric]:
    yield _gauge("jobs", "Open jobs.", figures.jobs, "state")
    yield _counter("jobs_opened", "Jobs that were opened.", figures.jobs_opened)
    yield _counter("jobs_ended", "Jobs that are over, by how.", figures.jobs_ended, "state")
    yield _gauge(
        "queue_oldest_seconds",
        "For how long the job waits that has waited longest for a node.",
        figures.queue_oldest_s,
    )
    yield _counter("calls_completed", "Calls that have an outcome.", figures.calls_completed)
    yield _counter("calls_failed", "Of these: errors, and deaths.", figures.calls_failed)
    yield _counter(
        "calls_retried", "Calls that failed and were called again.", figures.calls_retried
    )
    yield _gauge("calls_running", "Calls that run.", figures.calls_running)
    yield _gauge("calls_pending", "Inputs that wait for a slot.", figures.calls_pending)
    yield _histogram(figures)
    yield _counter("input_bytes", "Bytes of inputs.", figures.bytes_in)
    yield _counter("output_bytes", "Bytes of outcomes.", figures.bytes_out)


def _nodes_and_rest(figures: Figures) -> Iterable[Metric]:
    yield _gauge("slots", "Calls that may run at once on the nodes that are leased.", figures.slots)
    yield _gauge(
        "nodes", "Nodes; of the lost ones those of the last seven days.", figures.nodes, "state"
    )
    yield _gauge("node_cpus", "CPUs of all nodes.", figures.cpus)
    yield _gauge("node_memory_bytes", "Memory of all nodes.", figures.ram)
    yield _gauge("clients", "Processes that call.", figures.clients)
    yield _gauge("clients_away", "Of these: not heard of for long.", figures.clients_away)
    yield _gauge("blob_bytes", "Bytes of blobs that are kept.", figures.blob_bytes)
    yield _gauge(
        "quota_used_ratio",
        "How much of a quota that user has used who has used most of it.",
        figures.quota_used,
        "quota",
    )


def _histogram(figures: Figures) -> Metric:
    buckets, total = [], 0
    counts = figures.call_durations
    for bucket in range(BUCKETS):
        total += counts.get(bucket, 0)
        if bucket in range(FIRST_BUCKET, LAST_BUCKET + 1, BUCKET_STEP):
            buckets.append((f"{bucket_end_s(bucket):g}", float(total)))
    buckets.append(("+Inf", float(total)))
    found = HistogramMetricFamily("burla_call_duration_seconds", "How long calls took.")
    found.add_metric((), buckets, figures.calls_busy_s)
    return found


def _gauge(name: str, text: str, value: float | Mapping[str, float], label: str = "") -> Metric:
    return _filled(GaugeMetricFamily(f"burla_{name}", text, labels=_labels(label)), value)


def _counter(name: str, text: str, value: float | Mapping[str, float], label: str = "") -> Metric:
    return _filled(CounterMetricFamily(f"burla_{name}", text, labels=_labels(label)), value)


def _labels(label: str) -> list[str]:
    return [label] if label else []


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, value: float | Mapping[str, float]
) -> Metric:
    if isinstance(value, Mapping):
        for name, each in value.items():
            family.add_metric((name,), each)
    else:
        family.add_metric((), value)
    return family

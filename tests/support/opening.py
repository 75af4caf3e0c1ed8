"""The word that opens a job, as tests say it that care for one or two of its fields."""

from typing import Any

from burla.protocol import messages as m


def open_job(job: bytes, topic: bytes = bytes(16), **more: Any) -> m.OpenJob:
    """Return an `OpenJob` for calls of one CPU each, with `more` of its fields as given."""
    return m.OpenJob(
        job=job,
        topic=topic,
        name="f",
        func_cpu=1,
        func_ram=None,
        max_parallelism=None,
        unpack=False,
        environment=b"",
        **more,
    )

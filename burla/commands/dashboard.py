"""`burla dashboard`: clusters in a browser. Other rooms are imported inside the command only."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from burla import errors

from .options import address_in_use, cluster_option

EXTRA = "pip install 'burla[dashboard]'"


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port of 127.0.0.1 to serve at (default: any that is free).",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@cluster_option
def dashboard(port: int, no_browser: bool, cluster: str | None) -> None:
    """Show clusters in a browser: nodes, jobs, errors, users, as they change.

    Serves pages to your own browser, from this process, which asks the cluster with your key; ends
    with Ctrl-C. Without a configured cluster it shows the private ones that run on this machine.
    """
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        text = f"`burla dashboard` needs {error.name}, which is not installed: {EXTRA}"
        raise errors.BurlaError(text) from None
    from burla.dashboard.serving import serve

    address = address_in_use(cluster)  # what is wrong with it is said here, and now

    def announce(url: str, url_once: str, at: int) -> None:
        click.echo(f"The dashboard is at {url}")
        click.echo("Only you can open it, by this address. Ctrl-C ends it.")
        if os.environ.get("SSH_CONNECTION"):
            click.echo(
                f"From your own machine: ssh -L {at}:127.0.0.1:{at} {_host()}, then open it."
            )
        elif not no_browser and _has_screen():
            import threading

            # beside the server: there are browsers that are waited for until they end
            threading.Thread(target=_open_browser, args=(url_once,), daemon=True).start()

    serve(lambda: list(_places(cluster, address)), port, announce)


def _has_screen() -> bool:
    """Return whether a browser would have a window: one in this terminal would take it from us."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform != "linux" or any(os.environ.get(name) for name in names)


def _open_browser(url: str) -> None:
    import webbrowser

    with suppress(webbrowser.Error):
        webbrowser.open(url)


def _host() -> str:
    import socket

    return socket.gethostname()


def _places(named: str | None, address: str | None) -> Iterator[Any]:
    """Yield the cluster that is meant, if any, then all others of this user on this machine."""
    from burla.dashboard.places import Place
    from burla.provisioning.clusters import known

    from .private_clusters import running

    states = {state.address: state.config.name for state in known()}
    if address is not None:
        name = states.pop(address, None)
        about = "as --cluster says" if named is not None else "the one in use"
        yield Place(name or "_", name or "cluster", address, about, is_meant=True)
    for where, name in states.items():
        yield Place(name, name, where, "made by `burla up` here")
    for one in running():
        pid = one.owner.pid
        title = f"private cluster of process {pid}"
        yield Place(f"_{pid}", title, one.address, one.program(), why_gone=one.why_gone)

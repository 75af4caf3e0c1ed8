"""Runs a script on what looks like macOS or Windows: nothing is there that those systems lack.

    python tests/support/other_platforms.py win32 SCRIPT ARGUMENTS...
    python tests/support/other_platforms.py darwin -m MODULE ARGUMENTS...

Modules cannot be imported, attributes are gone, and /proc and /dev/shm are no files. What of the
standard library decides by the platform is imported before: it goes on as it does here.
"""

import asyncio
import concurrent.futures
import ctypes
import email
import getpass
import importlib.abc
import importlib.metadata
import logging.handlers
import multiprocessing.pool
import os
import platform
import runpy
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import webbrowser
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import click
import rich.console
import rich.live
import zmq

USED: list[ModuleType] = [asyncio, concurrent.futures, ctypes, email, getpass]
USED += [multiprocessing.pool, logging.handlers, platform, shutil, subprocess, tempfile]
USED += [webbrowser, zmq, importlib.metadata, urllib.request, click, rich.console, rich.live]

# What Linux has and macOS lacks, then what Windows lacks as well.
MODULES: dict[str, tuple[str, ...]] = {
    "darwin": (),
    "win32": ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"),
}
MODULES["win32"] += ("posix", "syslog", "uvloop", "readline", "curses", "spwd", "crypt")
LINUX: dict[ModuleType, str] = {
    os: "pidfd_open sched_getaffinity sched_setaffinity memfd_create eventfd O_PATH O_TMPFILE"
    " splice copy_file_range getrandom posix_fadvise posix_fallocate unshare setns getxattr"
    " setxattr listxattr pipe2 getresuid setresuid SCHED_BATCH RTLD_DEEPBIND",
    signal: "SIGPWR SIGSTKFLT SIGRTMIN SIGRTMAX sigwaitinfo sigtimedwait pidfd_send_signal",
    socket: "AF_NETLINK AF_PACKET AF_VSOCK SO_PEERCRED SO_BINDTODEVICE SOCK_CLOEXEC SOCK_NONBLOCK",
    select: "epoll",
}
UNIX: dict[ModuleType, str] = {
    os: "fork forkpty register_at_fork getuid geteuid getgid getegid getgroups getpgrp getpgid"
    " getsid setsid setpgid setuid setgid killpg tcgetpgrp tcsetpgrp environb getenvb fchmod"
    " fchown chown lchown mkfifo mknod uname sysconf getloadavg nice statvfs fstatvfs pread pwrite"
    " preadv pwritev readv writev sendfile wait wait3 wait4 waitid WNOHANG posix_spawn openpty"
    " ttyname O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_DIRECTORY O_SYNC lockf fdatasync initgroups"
    " get_blocking set_blocking chroot fchdir sync",
    signal: "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGCHLD SIGALRM SIGPIPE SIGTSTP SIGCONT"
    " SIGSTOP SIGWINCH SIGXFSZ SIGTTIN SIGTTOU SIGXCPU SIGBUS SIGTRAP SIG_BLOCK SIG_UNBLOCK"
    " SIG_SETMASK pthread_sigmask pthread_kill setitimer alarm pause sigwait sigpending"
    " siginterrupt",
    socket: "AF_UNIX send_fds recv_fds CMSG_SPACE CMSG_LEN SCM_RIGHTS",
    select: "poll",
}
NO_FILES = ("/proc", "/dev/shm", "/sys")


class Hidden(importlib.abc.MetaPathFinder):
    """Finds no module of these names."""

    def __init__(self, names: Sequence[str]) -> None:
        """Hide them."""
        self._names = frozenset(names)

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Refuse them, and leave others to others."""
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected, as Windows has them: over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


def _refuse_files(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"):
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str) and path.startswith(NO_FILES):
            raise FileNotFoundError(2, "No such file or directory", path)


def _keep_for(module: ModuleType, *names: str) -> None:
    """Let a module go on with what it has imported, whatever is hidden from others."""
    for name in names:
        copy = ModuleType(name)
        vars(copy).update(vars(vars(module)[name]))
        vars(module)[name] = copy


def become(name: str) -> None:
    """Look like this platform from now on."""
    _keep_for(subprocess, "os", "signal")  # with which it waits here
    _keep_for(shutil, "os")
    for hidden in MODULES[name]:
        sys.modules.pop(hidden, None)
    sys.meta_path.insert(0, Hidden(MODULES[name]))
    for lacks in (LINUX, UNIX) if name == "win32" else (LINUX,):
        for module, attributes in lacks.items():
            for attribute in attributes.split():
                vars(module).pop(attribute, None)
    if name == "win32":
        vars(socket)["socketpair"] = _pair
        vars(signal)["SIGBREAK"] = signal.SIGTERM
        vars(ssl)["enum_certificates"] = lambda store: []  # those of files are found all the same
    sys.addaudithook(_refuse_files)
    sys.platform = name


def main() -> None:
    """Become the platform and run the script."""
    name, *sys.argv = sys.argv[1:]
    become(name)
    if sys.argv[0] == "-m":
        module = sys.argv[1]
        del sys.argv[0]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

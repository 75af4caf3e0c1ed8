"""Jobs do not reach link-local addresses: clouds tell a machine about itself there, and are told.

But for names: on some clouds the resolver has such an address, too.

A program of the kernel's on the control group of a lease drops what goes there; it goes with the
group. A unit of `burla up` has systemd do the same for all of the node.
"""

import ctypes
import errno
import os
import socket
import struct

from . import linux

METADATA = "169.254.169.254"
_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)

# linux/bpf.h
_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_SKB, _EGRESS, _ALLOW_MULTI = 8, 1, 2
_SKB_LOAD_BYTES = 26  # number of a helper
_PROTOCOL = 16  # offset in struct __sk_buff
_IPV4, _IPV6 = socket.htons(0x0800), socket.htons(0x86DD)
_IPV4_TO, _IPV6_TO = 16, 24  # offsets of the address in the packet
_IPV6_PORT = 42  # offset of the port that it goes to, if nothing is between the headers
_DNS = socket.htons(53)
_LINK_LOCAL = struct.unpack("=H", bytes([169, 254]))[0]
_METADATA_IPV6 = struct.unpack("=QQ", socket.inet_pton(socket.AF_INET6, "fd20:ce::254"))


def shut(group: str) -> None:
    """Have all processes of a control group (version 2) reach no link-local address.

    Args:
        group: its directory.

    Raises:
        OSError: the kernel cannot, or we may not.
    """
    program = _load()
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", fd, program, _EGRESS, _ALLOW_MULTI))
        finally:
            os.close(fd)
    finally:
        os.close(program)


def is_reached() -> bool:
    """Return whether this process could send something there; nobody takes this datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(b"", (METADATA, 9))
        except OSError:
            return False
    return True


def _load() -> int:
    """Return the descriptor of the program."""
    code = _program()
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    words = struct.pack(
        "=IIQQ24x",
        *(_CGROUP_SKB, len(code) // 8),
        *(ctypes.addressof(instructions), ctypes.addressof(licence)),
    )
    return _bpf(_PROG_LOAD, words)


def _program() -> bytes:
    """Return its instructions: opcode, registers (source, destination), offset, constant."""

    def line(opcode: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("=BBhi", opcode, source << 4 | to, offset, value)

    def load_packet(at: int | None, length: int) -> list[bytes]:
        return [
            line(0xBF, 1, 6),  # r1 = the packet
            line(0xBF, 2, 0) if at is None else line(0xB7, 2, value=at),  # None: from r0 on
            line(0xBF, 3, 10),
            line(0x07, 3, value=-16),  # r3 = 16 bytes of the stack
            line(0xB7, 4, value=length),
            line(0x85, value=_SKB_LOAD_BYTES),
        ]

    def wide(value: int) -> list[bytes]:  # r2 = 64 bits
        low, high = struct.unpack("=ii", struct.pack("=Q", value))
        return [line(0x18, 2, value=low), line(0, value=high)]

    drop_but_dns = [
        line(0x69, 0, 10, -16),
        line(0x15, 0, offset=2, value=_DNS),
        line(0xB7, 0, value=0),
        line(0x95),
    ]
    let = [line(0xB7, 0, value=1), line(0x95)]
    ipv4 = [
        *load_packet(_IPV4_TO, 4),
        line(0x69, 0, 10, -16),  # r0 = the first two bytes
        line(0x55, 0, offset=20, value=_LINK_LOCAL),  # another: to the end
        *load_packet(0, 1),
        line(0x71, 0, 10, -16),
        line(0x57, 0, value=15),  # words of the header
        line(0x67, 0, value=2),
        line(0x07, 0, value=2),  # behind it: the port it comes from, the port it goes to
        *load_packet(None, 2),
        *drop_but_dns,
        *let,
    ]
    ipv6 = [
        *load_packet(_IPV6_TO, 16),
        line(0x79, 0, 10, -16),
        *wide(_METADATA_IPV6[0]),
        line(0x5D, 0, 2, 14),  # another: to the end
        line(0x79, 0, 10, -8),
        *wide(_METADATA_IPV6[1]),
        line(0x5D, 0, 2, 10),
        *load_packet(_IPV6_PORT, 2),
        *drop_but_dns,
        *let,
    ]
    return b"".join(
        [
            line(0xBF, 6, 1),
            line(0x61, 7, 6, _PROTOCOL),
            line(0x55, 7, offset=len(ipv4), value=_IPV4),
            *ipv4,
            line(0x55, 7, offset=len(ipv6), value=_IPV6),
            *ipv6,
            *let,
        ]
    )


def _bpf(command: int, words: bytes) -> int:
    if _SYSCALL_BPF is None:
        raise OSError(errno.ENOSYS, "the number of bpf is not known here")
    return linux.syscall("bpf", _SYSCALL_BPF, command, words)

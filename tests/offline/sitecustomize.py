"""Refuses the network in every Python process that starts with this folder on its path."""

import socket
import sys


class NetworkError(RuntimeError):
    """A test, or what it called, tried to reach another machine."""


ALLOWED: set[tuple[str, int]] = set()
"""Addresses of servers that a test runs itself, on this machine (the fixture ``loopback``)."""


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and getattr(arguments[0], "family", None) in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        if arguments[1] not in ALLOWED:
            raise NetworkError(f"connection to {arguments[1]}")
    hosts = {None, "localhost", *(host for host, _ in ALLOWED)}
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in hosts:
        raise NetworkError(f"look-up of {arguments[0]}")


# An audit hook sees every socket of this process, whoever opens it.
sys.addaudithook(_refuse)

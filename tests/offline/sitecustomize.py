"""Refuses the network in every Python process that starts with this folder on its path."""

import socket
import sys


class NetworkError(RuntimeError):
    """A test, or what it called, tried to reach another machine."""


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and getattr(arguments[0], "family", None) in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        raise NetworkError(f"connection to {arguments[1]}")
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in (None, "localhost"):
        raise NetworkError(f"look-up of {arguments[0]}")


# An audit hook sees every socket of this process, whoever opens it.
sys.addaudithook(_refuse)

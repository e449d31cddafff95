import socket
import urllib.request

import pytest


def test_pipes_inside_the_machine_work() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        assert other.recv(1) == b"x"


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 9), ("192.0.2.1", 80), ("::1", 9)], ids=["local", "remote", "ipv6"]
)
def test_a_connection_is_refused(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as plug, pytest.raises(RuntimeError, match="connection to"):
        plug.connect(address)


def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"look-up of example\.invalid"):
        urllib.request.urlopen("http://example.invalid", timeout=1)

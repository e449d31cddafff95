import socket
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import socket; socket.socket().connect(('127.0.0.1', 9))", "connection to"),
        ("import socket; socket.getaddrinfo('example.invalid', 80)", "look-up of example.invalid"),
        (
            "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', "
            "\"import socket; socket.gethostbyname('example.invalid')\"]))",
            "look-up of example.invalid",
        ),
    ],
    ids=["connection", "look-up", "grandchild"],
)
def test_a_child_process_is_refused(code: str, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "NetworkError: " + words in done.stderr

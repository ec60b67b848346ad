"""Ports of loopback for servers of tests."""

import socket


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on; all are held until the last is found, so that none comes twice."""
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in held]
    for s in held:
        s.close()
    return ports


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]

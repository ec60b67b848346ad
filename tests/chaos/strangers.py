"""Whoever can reach a port and means harm, or nothing: bytes of no protocol, floods, endless messages, connections that are held.

python -m tests.chaos.strangers SEED PORT...
"""

import contextlib
import random
import socket
import sys
import time
from pathlib import Path

import zmq

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)


def noise(random_: random.Random, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
        for _ in range(random_.randint(1, 30)):
            s.sendall(random_.randbytes(random_.randint(1, 5000)))


def endless(random_: random.Random, port: int) -> None:
    """One message of parts without end."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
        s.sendall(_GREETING)
        s.sendall(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH")
        until = time.monotonic() + random_.uniform(0.2, 1.5)
        while time.monotonic() < until:
            s.sendall((b"\x01\xfa" + bytes(250)) * 50)


def subscriptions(random_: random.Random, port: int) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as s:
        s.setsockopt(zmq.LINGER, 0)
        s.connect(f"tcp://127.0.0.1:{port}")
        for _ in range(random_.randint(100, 20_000)):
            s.subscribe(random_.randbytes(8))


def questions(random_: random.Random, port: int) -> None:
    """As many as the wire takes, and not one answer read."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as s:
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.SNDTIMEO, 50)
        s.connect(f"tcp://127.0.0.1:{port}")
        until = time.monotonic() + random_.uniform(0.2, 2.0)
        with contextlib.suppress(zmq.Again):
            while time.monotonic() < until:
                s.send(random_.choice((b"\x83\xa6schema\x02\xa7request\x01\xa9after_seq\x00", random_.randbytes(60))))


def listener(random_: random.Random, port: int) -> None:
    """Without a key, or with one that nobody let in: what comes all the same is written down."""
    with zmq.Context() as context, context.socket(random_.choice((zmq.SUB, zmq.DEALER))) as s:
        s.setsockopt(zmq.LINGER, 0)
        if random_.random() < 0.5:
            s.curve_publickey, s.curve_secretkey = zmq.curve_keypair()
            s.curve_serverkey = _SERVER[0]
        if s.socket_type == zmq.SUB:
            s.subscribe(b"")
        s.connect(f"tcp://127.0.0.1:{port}")
        if s.socket_type == zmq.DEALER:
            s.send(b"\x83\xa6schema\x02\xa7request\x01\xa9after_seq\x00")
        if s.poll(1500):
            with Path(sys.argv[2]).open("a") as f:
                f.write(f"{port} {s.socket_type} {s.recv_multipart()!r:.200}\n")


def held(random_: random.Random, port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(random_.randint(10, 150)):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
        time.sleep(random_.uniform(0.1, 1.0))


KINDS = (noise, endless, subscriptions, questions, held, listener)
_SERVER: list[bytes] = []


def main() -> None:
    random_ = random.Random(int(sys.argv[1]))
    _SERVER.append(sys.argv[3].encode())
    ports = [int(port) for port in sys.argv[4:]]
    while True:
        with contextlib.suppress(OSError, zmq.ZMQError):
            random_.choice(KINDS)(random_, random_.choice(ports))
        time.sleep(random_.uniform(0.0, 0.3))


if __name__ == "__main__":
    main()

"""Whoever asks knows that the door's process stood still, wherever in its round it did."""

import socket
import time

from edge_runtime.security.door.clock import AWAY_S, CLOCK
from edge_runtime.security.door.serving import Doors


def test_a_process_that_stood_still_says_so_before_it_hands_on_what_came_meanwhile() -> None:
    clock = bytearray(CLOCK.size)
    station, control = socket.socketpair()
    with station, control:
        doors = Doors(control, clock)
        doors._beat(0.0)
        assert CLOCK.unpack_from(clock)[2] == 0
        time.sleep(AWAY_S + 0.05)  # with whatever it was busy
        doors._beat(AWAY_S)
        assert CLOCK.unpack_from(clock)[2] == 0, "that long it had meant to wait"
        time.sleep(AWAY_S + 0.05)
        doors._beat(0.0)
        beat_ns, back_ns, away_ns = CLOCK.unpack_from(clock)
        assert back_ns == beat_ns
        assert away_ns > AWAY_S * 1e9
        doors._selector.close()

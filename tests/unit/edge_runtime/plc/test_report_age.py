"""How late a report is, by a server's stamps: delays in the server and on the way, and clocks that are set."""

import pytest

from edge_runtime.plc.report_age import ReportAges

HOUR = 3600.0


class Server:
    """Reports every 50 ms; its clock is `ahead` of ours, and a report takes 2 ms."""

    def __init__(self, ahead: float = 0.0, reports: int = 20) -> None:
        self.ages, self.now, self.ahead = ReportAges(0.06), 1000.0, ahead
        for _ in range(reports):
            self.report()

    def report(self, *, after: float = 0.05, on_its_way: float = 0.002, stamped: bool = True) -> None:
        self.now += after
        self.ages.heard(self.now, self.now - on_its_way + self.ahead if stamped else None)

    def age(self, happened: float) -> float:
        """What is said of a change that `happened` so long ago, by the source's stamp."""
        return self.ages.age_s(self.now - happened + self.ahead)


@pytest.mark.parametrize("ahead", [0.0, -7 * HOUR, 1.7])
def test_a_change_is_as_old_as_the_server_says_whatever_its_clock_shows(ahead: float) -> None:
    server = Server(ahead)
    server.report()
    assert server.age(0.042) == pytest.approx(0.04, abs=1e-6)


def test_what_was_long_on_its_way_is_as_old_as_that() -> None:
    """A cable that was out: the system sends again, and the reports behind come at once."""
    server = Server()
    server.report(after=0.4, on_its_way=0.352)
    assert server.age(0.36) == pytest.approx(0.358, abs=1e-3)
    server.report(after=0.0, on_its_way=0.302)
    assert server.age(0.31) == pytest.approx(0.308, abs=1e-3)
    server.report()
    assert server.age(0.01) == pytest.approx(0.008, abs=1e-3)


def test_a_server_that_publishes_seldom_or_stands_still_tells_by_its_stamps() -> None:
    server = Server()
    server.report(after=0.5)
    assert server.age(0.45) == pytest.approx(0.448, abs=1e-3)


def test_nothing_is_older_than_the_report_before_says() -> None:
    """It showed the tags as they were."""
    server = Server()
    server.report(after=0.05)
    assert server.age(99.0) == pytest.approx(0.11, abs=1e-3)


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_clock_that_is_set_is_no_delay(step: float) -> None:
    server = Server()
    server.ahead += step
    for _ in range(3):
        server.report()
        assert server.age(0.02) < 0.12
    server.ahead -= step
    server.report()
    assert server.age(0.02) < 0.12


def test_a_source_with_a_clock_of_its_own_makes_no_part_old() -> None:
    server = Server()
    for _ in range(5):
        server.report()
        age = server.age(HOUR + 0.02)
    assert age == pytest.approx(0.0, abs=1e-6)


def test_without_stamps_nothing_is_known() -> None:
    server = Server(reports=0)
    for _ in range(3):
        server.report(stamped=False)
        assert server.ages.age_s(None) == 0.0

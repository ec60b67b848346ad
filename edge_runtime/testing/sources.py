"""What every source must keep."""

import itertools
import threading
import time

from edge_runtime.protocols import Source
from edge_runtime.records import Frame

_OPEN_S = 0.2
"""How long before `__enter__` returned a first frame may have been captured."""
_LEAVE_S = 5.0


class SourceContract:
    """Derive a test class and give it a fixture `source`: one that is not entered yet, and has at least three frames to give."""

    def test_frames_are_numbered_stamped_and_read_only(self, source: Source) -> None:
        """`seq` grows, by one where each grab makes a frame; `captured_ns` is CLOCK_MONOTONIC; nobody can write into an image."""
        with source:
            entered = time.monotonic_ns()
            frames = [source.grab(1.0) for _ in range(3)]
            assert source.problem is None
        assert [b.seq - a.seq for a, b in itertools.pairwise(frames)] == [1, 1] or not source.on_demand
        assert frames[0].seq < frames[1].seq < frames[2].seq
        for frame in frames:
            assert entered - _OPEN_S * 1e9 < frame.captured_ns <= time.monotonic_ns()
            assert not frame.image.flags.writeable, "expected an image that nobody can write into"

    def test_frames_are_images_of_one_size(self, source: Source) -> None:
        """(H, W) gray or (H, W, 3) BGR, uint8 or uint16."""
        with source:
            images = [source.grab(1.0).image for _ in range(3)]
        assert {(image.shape, image.dtype) for image in images} == {(images[0].shape, images[0].dtype)}
        assert images[0].ndim == 2 or (images[0].ndim == 3 and images[0].shape[2] == 3)
        assert images[0].dtype in ("uint8", "uint16") and images[0].size > 0

    def test_a_frame_made_on_demand_is_not_older_than_its_grab(self, source: Source) -> None:
        """Law 3: a picture that was taken before the trigger shows another part."""
        import pytest

        with source:
            if not source.on_demand:
                pytest.skip("runs free: the station picks the first frame captured after the trigger")
            source.grab(1.0)
            time.sleep(0.02)
            before = time.monotonic_ns()
            assert source.grab(1.0).captured_ns >= before

    def test_a_source_can_be_opened_again(self, source: Source) -> None:
        """Also after something inside went wrong, which comes out as it was."""
        for _ in range(2):
            with source:
                assert source.grab(1.0).image.size > 0
        try:
            with source:
                raise KeyError("what happens inside comes out")
        except KeyError:
            pass
        else:
            raise AssertionError("expected `__exit__` to let an exception out, found that it kept it")
        with source:
            assert source.grab(1.0).image.size > 0

    def test_it_is_grabbed_from_in_another_thread_than_the_one_that_opened_it(self, source: Source) -> None:
        """A station opens all its parts in one thread and grabs in the capture thread."""
        grabbed: list[Frame | BaseException] = []

        def grab() -> None:
            try:
                grabbed.append(source.grab(1.0))
            except BaseException as e:
                grabbed.append(e)

        with source:
            thread = threading.Thread(target=grab)
            thread.start()
            thread.join()
        assert isinstance(grabbed[0], Frame), grabbed[0]

    def test_what_a_station_asks_is_answered(self, source: Source) -> None:
        """All that a base class has a default for, once entered."""
        with source:
            source.grab(1.0)
            assert {type(answer) for answer in (source.on_demand, source.live, source.lost, source.guarded)} == {bool}
            assert source.remaining is None or source.remaining >= 0
            assert source.bits is None or 1 <= source.bits <= 16
            assert source.latency_ms >= 0 and source.open_timeout_ms > 0 and source.read_timeout_ms > 0
            assert source.trigger_window_ns is None or min(source.trigger_window_ns) >= 0
            assert all(isinstance(name, str) and count >= 0 for name, count in source.tallies.items())

    def test_leaving_takes_a_moment_only(self, source: Source) -> None:
        """A station that stops waits for it."""
        with source:
            source.grab(1.0)
            began = time.perf_counter()
        assert time.perf_counter() - began < _LEAVE_S

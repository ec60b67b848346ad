"""Cells of numbered areas (coils, registers, bytes of a data block): where a tag lies, its value, what is read together. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge_runtime.errors import ConfigError
from edge_runtime.plc.tags import Tag, Value, from_bytes, to_bytes

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Span:
    """`count` cells of an area from `start` on."""

    area: str
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class Place(Span):
    """Where a tag lies: its cells, or one bit of one cell."""

    bit: int | None = None


def decode(tag: Tag, place: Place, cells: Sequence[int], width: int) -> Value:
    """The tag's value in its cells, of `width` bytes each."""
    if place.bit is not None:
        return bool(cells[0] >> place.bit & 1)
    return from_bytes(tag, b"".join(cell.to_bytes(width, "big") for cell in cells))


def encode(tag: Tag, place: Place, value: Value, before: Sequence[int], width: int) -> list[int]:
    """The tag's cells with that value in them; `before` is what they held, for the bits beside the tag's."""
    if place.bit is not None:
        return [before[0] & ~(1 << place.bit) | bool(value) << place.bit]
    data = to_bytes(tag, value)
    return [int.from_bytes(data[i : i + width], "big") for i in range(0, len(data), width)]


def batches(items: Sequence[_T], fits: Callable[[Sequence[_T]], bool]) -> list[Sequence[_T]]:
    """Consecutive items in groups, each as long as `fits` allows: what is together is one request, and the order of the rest is kept."""
    groups: list[Sequence[_T]] = []
    at = 0
    while at < len(items):
        end = next(end for end in range(len(items), at, -1) if end == at + 1 or fits(items[at:end]))
        groups.append(items[at:end])
        at = end
    return groups


def joined(spans: Sequence[Span], gap: int) -> list[Span]:
    """Sorted and without overlaps; what is at most `gap` cells apart in one area is one span."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.area, s.start)):
        last = result[-1] if result else None
        if last is not None and last.area == span.area and span.start <= last.end + gap:
            result[-1] = Span(last.area, last.start, max(last.end, span.end) - last.start)
        else:
            result.append(Span(span.area, span.start, span.count))
    return result


def refuse_overlaps(tags: Sequence[Tag], places: Mapping[str, Place], cell: str) -> None:
    """Raises ConfigError where an output shares its place with another tag; two outputs may be bits of one `cell` ("register")."""
    for i, tag in enumerate(tags):
        for other in tags[:i]:
            a, b = places[tag.name], places[other.name]
            if a.area != b.area or a.start >= b.end or b.start >= a.end or not (tag.writable or other.writable):
                continue
            if None not in (a.bit, b.bit) and a.bit != b.bit:
                if tag.writable and other.writable:
                    continue
                raise ConfigError(
                    f"{tag.key}: {tag.address} is in the same {cell} as {other.key} ({other.address}); the station writes a whole {cell} "
                    f"for an output bit, so expected no input in it: move one of the two to another {cell}"
                )
            raise ConfigError(
                f"{tag.key}: {tag.address} shares its place with {other.key} ({other.address}); expected a place of its own for each output"
            )


def listed(spans: Sequence[Span]) -> str:
    """For messages: "holding:16..19, coil:3"."""
    return ", ".join(f"{s.area}:{s.start}" + (f"..{s.end - 1}" if s.count > 1 else "") for s in spans)

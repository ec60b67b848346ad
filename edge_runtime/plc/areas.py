"""PLCs whose tags are cells of numbered areas (coils, registers, bytes of a data block): what Modbus and S7 have in common."""

import logging
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edge_runtime.errors import TagError
from edge_runtime.plc.cells import Place, Span, batches, decode, encode, joined, listed, refuse_overlaps
from edge_runtime.plc.deadline import ASK_AGAIN_S, Deadline
from edge_runtime.plc.port import PlcLost, TooLate
from edge_runtime.plc.tags import Tag, Value

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Refused(Exception):
    """The PLC answered a request with an error; what it said, as text."""

    def __init__(
        self, said: str, *, no_such_place: bool = False, too_much: bool = False, no_such_request: bool = False, not_now: bool = False
    ) -> None:
        """What may be meant: the place is not there; so many cells are too many for one request; the PLC does not know this kind of
        request; the same may be answered a moment later."""
        super().__init__(said)
        self.no_such_place, self.too_much, self.no_such_request, self.not_now = no_such_place, too_much, no_such_request, not_now


@dataclass(slots=True)
class _Read:
    """One request: what it reads, and the tags in it with the span and the cell of the span where each begins."""

    spans: list[Span]
    members: list[tuple[Tag, Place, int, int]]
    cells: Sequence[Sequence[int] | Refused] = ()
    """As they were last read, and the tags' values in them: most polls find the same again."""
    values: dict[str, Value] = field(default_factory=dict)


class AreaPort(ABC):
    """A TagPort over requests for spans of cells. The protocols say how a span is read and written, and what fits into one request.

    The station owns the cells of its output bits: a bit beside them that no tag maps is written as 0. What a request must write between
    two outputs, because one request writes adjacent cells only, is other outputs as they were last written.
    """

    pushes = False
    happened_s: Sequence[float] = ()
    ordered = False
    where: str
    missing: Mapping[str, str]
    cell: str
    """For messages: "register", "byte"."""
    width: int
    """Bytes in a cell."""

    def __init__(self, tags: Sequence[Tag], timeout_s: float) -> None:
        """`timeout_s`: of each `read` and `write` as a whole, and of each request while connecting."""
        self._timeout_s = timeout_s
        self._deadline = Deadline(timeout_s)
        self.missing = {}
        self._tags = {tag.name: tag for tag in tags}
        self._places = {tag.name: self._parse(tag) for tag in tags}
        refuse_overlaps(tags, self._places, self.cell)
        self._gap = self.gap
        self._reads: dict[tuple[str, ...], list[_Read]] = {}
        self._writes: dict[tuple[str, ...], list[tuple[Span, Sequence[str]]]] = {}
        self._last = {(p.area, n): 0 for t in tags if t.writable for p in [self._places[t.name]] for n in range(p.start, p.end)}
        """The output cells as they were last written, by area and number."""

    gap: int
    """Cells that are read for nothing rather than making another request."""

    @property
    def note(self) -> str:
        """As in TagPort."""
        return ""

    @abstractmethod
    def _parse(self, tag: Tag) -> Place:
        """Where the tag lies. Raises ConfigError."""

    @abstractmethod
    def _open(self) -> None:
        """Connect. Raises PlcLost."""

    @abstractmethod
    def close(self) -> None:
        """As in TagPort."""

    @abstractmethod
    def _fits(self, spans: Sequence[Span]) -> bool:
        """True when one request reads all of these."""

    @abstractmethod
    def _fits_write(self, span: Span) -> bool:
        """True when one request writes this."""

    @abstractmethod
    def _read_cells(self, spans: Sequence[Span]) -> Sequence[Sequence[int] | Refused]:
        """The cells of each span, in one request, within `self._deadline`. Raises Refused where all are, PlcLost."""

    @abstractmethod
    def _write_cells(self, span: Span, cells: Sequence[int]) -> None:
        """Within `self._deadline`. Raises Refused, PlcLost."""

    def _shrunk(self, span: Span, *, writing: bool) -> bool:
        """So much at once was refused, though each of its tags is there: whether less is asked for from now on."""
        return False

    def _simplified(self, area: str) -> bool:
        """The PLC does not know the request that writes the area's cells: whether there is another, which is made from now on."""
        return False

    def connect(self, changed: Callable[[], None]) -> None:
        """As in TagPort. Reads each tag by itself, and writes each output back as it was read to see that it is writable."""
        self.close()
        self._open()
        self.missing = {}
        for tag in self._tags.values():
            place = self._places[tag.name]
            try:
                cells = self._tried("read", tag, self._one, place)
            except Refused as e:  # it is there, and as busy as before
                if tag.writable:
                    raise self._lost(f"refused to read {tag.address}: {e}") from e
                continue
            if tag.writable:
                self._remember(place, cells)
        for tag in self._tags.values():
            if tag.writable:
                try:
                    self._tried("write", tag, self._write_back, self._places[tag.name])
                except Refused as e:
                    raise self._lost(f"refused to write {tag.address}: {e}") from e

    def _tried(self, doing: str, tag: Tag, request: Callable[..., _T], *args: object) -> _T:
        """Raises TagError; Refused where the PLC has said "not now" all the time."""
        try:
            return self._patiently(request, *args)
        except Refused as e:
            if e.not_now:
                raise
            self.close()
            raise TagError(f"{tag.key}: {self.where} refused to {doing} {tag.address}: {e}{self._hint(tag, e)}") from e

    def _patiently(self, request: Callable[..., _T], *args: object) -> _T:
        """Ask again, on the same connection, while the PLC says "not now" and there is time. Raises Refused, PlcLost."""
        self._deadline = Deadline(self._timeout_s)
        while True:
            try:
                return self._guarded(request, *args)
            except Refused as e:
                if not (e.not_now and self._deadline.allows_another):
                    raise
            time.sleep(ASK_AGAIN_S)

    def _one(self, place: Place) -> Sequence[int]:
        (cells,) = self._read_cells([place])
        if isinstance(cells, Refused):
            raise cells
        return cells

    def _hint(self, tag: Tag, refused: Refused) -> str:
        """What to do about it, for messages."""
        return "; check the address in the PLC's table" if refused.no_such_place else ""

    def _remember(self, place: Place, cells: Sequence[int]) -> None:
        """Take an output as it stands in the PLC, and nothing of the bits beside it."""
        mask = -1 if place.bit is None else 1 << place.bit
        for n, cell in enumerate(cells, place.start):
            self._last[place.area, n] = self._last[place.area, n] & ~mask | cell & mask

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        """As in TagPort."""
        self._deadline = Deadline(self._timeout_s)
        while True:
            values: dict[str, Value] = {}
            missing: dict[str, str] = {}
            if all(self._answered(plan, values, missing) for plan in self._read_plan(names)):
                self.missing = missing
                return values

    def _answered(self, plan: "_Read", values: dict[str, Value], missing: dict[str, str]) -> bool:
        """Ask for these and add what came, or why nothing did; False when all is to be asked in another way."""
        try:
            cells = self._guarded(self._read_cells, plan.spans)
        except Refused as e:
            if self._asks_otherwise(plan, e):
                return False
            missing |= dict.fromkeys((tag.name for tag, *_ in plan.members), str(e))
            return True
        refused = [one for one in cells if isinstance(one, Refused)]
        if any(self._asks_otherwise(plan, e) for e in refused):
            return False
        if refused or cells != plan.cells:
            plan.values = {}
            plan.cells = () if refused else cells
            for tag, place, span, at in plan.members:
                held = cells[span]
                if isinstance(held, Refused):
                    missing[tag.name] = str(held)
                else:
                    plan.values[tag.name] = decode(tag, place, held[at : at + place.count], self.width)
        values |= plan.values
        return True

    def _asks_otherwise(self, plan: "_Read", refused: Refused) -> bool:
        """Some PLCs refuse a request for what lies between their tags, or for more than a few cells at once."""
        if len(plan.members) == 1:
            return False
        if refused.no_such_place and self._gap:
            self._gap, what = 0, "reads nothing between the tags from now on"
        elif refused.too_much and len(plan.spans) == 1 and self._shrunk(plan.spans[0], writing=False):
            what = "reads less at once from now on"
        else:
            return False
        _log.warning("%s: refused to read %s: %s; %s", self.where, listed(plan.spans), refused, what)
        self._forget_plans()
        return True

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        """As in TagPort."""
        return (self.read(names),)

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        """As in TagPort."""
        deadline = Deadline(self._timeout_s, within_s)
        left = dict(values)
        while left:
            if deadline.forbids_sending:
                raise TooLate
            span, names = self._write_plan(left)[0]
            for name in names:
                place = self._places[name]
                before = [self._last[place.area, n] for n in range(place.start, place.end)]
                for n, cell in enumerate(encode(self._tags[name], place, values[name], before, self.width), place.start):
                    self._last[place.area, n] = cell
            self._deadline = deadline
            try:
                self._guarded(self._write_span, span)
            except Refused as e:
                if self._writes_otherwise(span, names, e):
                    continue
                if not deadline.allows_another:
                    raise self._lost(f"refused to write {listed([span])}: {e}") from e
                time.sleep(ASK_AGAIN_S)  # it could be written when the connection was made
                continue
            for name in names:
                del left[name]

    def trips(self, names: Sequence[str]) -> int:
        """As in TagPort."""
        return len(self._read_plan(names))

    def _write_span(self, span: Span) -> None:
        self._write_cells(span, [self._last[span.area, n] for n in range(span.start, span.end)])

    def _write_back(self, place: Place) -> None:
        try:
            self._write_span(place)
        except Refused as e:
            if not self._writes_otherwise(place, [], e):
                raise
            self._write_span(place)

    def _writes_otherwise(self, span: Span, names: Sequence[str], refused: Refused) -> bool:
        if refused.no_such_request and self._simplified(span.area):
            what = "writes cell by cell from now on"
        elif refused.too_much and len(names) > 1 and self._shrunk(span, writing=True):
            what = "writes less at once from now on"
        else:
            return False
        _log.warning("%s: refused to write %s: %s; %s", self.where, listed([span]), refused, what)
        self._forget_plans()
        return True

    def _read_plan(self, names: Sequence[str]) -> list[_Read]:
        key = tuple(names)
        if key not in self._reads:
            plan = []
            for group in batches(key, lambda group: self._fits(self._spans(group))):
                spans = self._spans(group)
                members = []
                for name in group:
                    place = self._places[name]
                    at = next(i for i, s in enumerate(spans) if s.area == place.area and s.start <= place.start < s.end)
                    members.append((self._tags[name], place, at, place.start - spans[at].start))
                plan.append(_Read(spans, members))
            self._reads[key] = plan
        return self._reads[key]

    def _forget_plans(self) -> None:
        self._reads.clear()
        self._writes.clear()

    def _spans(self, names: Sequence[str]) -> list[Span]:
        return joined([self._places[name] for name in names], self._gap)

    def _write_plan(self, names: Iterable[str]) -> list[tuple[Span, Sequence[str]]]:
        key = tuple(names)
        if key not in self._writes:
            self._writes[key] = [(self._hull(group), group) for group in batches(key, self._one_write)]
        return self._writes[key]

    def _hull(self, names: Sequence[str]) -> Span:
        places = [self._places[name] for name in names]
        start = min(p.start for p in places)
        return Span(places[0].area, start, max(p.end for p in places) - start)

    def _one_write(self, names: Sequence[str]) -> bool:
        """True when these share an area and all between them are outputs."""
        hull = self._hull(names)
        return (
            all(self._places[name].area == hull.area for name in names)
            and all((hull.area, n) in self._last for n in range(hull.start, hull.end))
            and self._fits_write(hull)
        )

    def _guarded(self, request: Callable[..., _T], *args: object) -> _T:
        """After a request without a proper answer the connection is closed: a late one must not be taken for the next one's."""
        try:
            return request(*args)
        except PlcLost:
            self.close()
            raise
        except (struct.error, ValueError, IndexError) as e:
            raise self._lost(f"answered with something that is not {type(self).__name__.removesuffix('Port')}: {e}") from e

    def _lost(self, why: str) -> PlcLost:
        self.close()
        return PlcLost(why)

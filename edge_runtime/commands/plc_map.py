"""The tag map as the PLC programmer needs it: each signal's address, type and meaning, as Markdown or CSV; and the fault codes."""

import csv
import io
from collections.abc import Sequence

from edge_runtime.config.files import PlcTrigger
from edge_runtime.plc.kinds import kind_of
from edge_runtime.plc.signals import INPUTS, OUTPUTS, StationFault, tags_of
from edge_runtime.plc.tags import Tag
from edge_runtime.records import Cause

HEADER = ("signal", "direction", "address", "type", "PLC type", "byte order", "scale", "meaning")
TO_STATION, TO_PLC = "PLC -> station", "station -> PLC"

FAULTS: dict[Cause | StationFault, tuple[str, str]] = {
    Cause.NONE: ("no fault", ""),
    Cause.CAMERA: ("no picture, or not in time", "look at the camera: cable, power, trigger; `lineside check` names it"),
    Cause.FRAME: ("a picture that cannot be judged: too old, or of another size or type", "has the camera's configuration been changed?"),
    Cause.MODEL: ("the model failed or did not answer in time", "see the station's log"),
    Cause.LATE: ("judged after the recipe's deadline_ms", "is something else running on the PC? Or allow more"),
    Cause.REFUSED: ("triggered while ready was low; overrun is high as well", "wait for ready before the trigger"),
    Cause.RECIPE: ("the station has no such recipe", "add it to [recipes], or correct the number"),
    Cause.PLC: ("the connection to the PLC was lost while the part was in the station", "in the journal only; the PLC never reads it"),
    Cause.ENDED: ("the station was killed, or lost its power, while the part was in it", "in the journal only; the PLC never reads it"),
    Cause.INTERNAL: ("an error in Lineside", "see the station's log"),
    Cause.JOURNAL: ("the part's row could not be written in time, and [journal] required asks for it", "look after the disk"),
    StationFault.ACKNOWLEDGE_TIMEOUT: (
        "a result was not acknowledged within acknowledge_timeout_ms; ready stays low",
        "raise reset_fault; results that wait for their acknowledge stay",
    ),
    StationFault.UNKNOWN_RECIPE: ("the station cannot run the recipe that is asked for; ready stays low", "ask for another recipe"),
    StationFault.LATE_FOR_PULSE: ("a verdict came after its part had passed the ejector; it was ejected", "longer delay, or reset_fault"),
    StationFault.PASSED_UNTOLD: (
        "the connection broke while parts were on their way to the ejector, and no pulse came for them",
        "take them out, then reset_fault",
    ),
}  # fmt: skip
"""Code -> what it means, and what to do. Below 100: of this part. Above: of the station itself, until reset_fault or its cause ends."""


def rows(settings: PlcTrigger) -> list[tuple[str, ...]]:
    """One a mapped signal, under HEADER; inputs first, each in the order in which it is read or written."""
    inputs, outputs = tags_of(settings)
    return [_row(settings, tag) for tag in (*inputs, *outputs)]


def as_csv(settings: PlcTrigger) -> str:
    """The tag map for a spreadsheet or the PLC's tool."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEADER, *rows(settings)])
    return out.getvalue()


def as_markdown(settings: PlcTrigger) -> str:
    """The tag map and the fault codes."""
    faults = [(str(int(code)), *said) for code, said in FAULTS.items()]
    return f"{_markdown(HEADER, rows(settings))}\n\n{_markdown(('fault_code', 'meaning', 'what to do'), faults)}\n"


def _row(settings: PlcTrigger, tag: Tag) -> tuple[str, ...]:
    signal = (OUTPUTS if tag.writable else INPUTS)[tag.name]
    manual = kind_of(settings).manual
    ordered = manual.byte_order and tag.size > 1
    order = tag.order if tag.size == 4 and tag.type != "text" else "AB" if tag.order in ("ABCD", "CDAB") else "BA"
    return (
        tag.name, TO_PLC if tag.writable else TO_STATION, tag.address, f"text of {tag.length}" if tag.type == "text" else tag.type,
        manual.types[tag.type], order if ordered else "", "" if tag.scale == 1.0 else f"{tag.scale:g}", signal.meaning,
    )  # fmt: skip


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their cells, so that it can be read in a terminal too."""
    cells = [[text.replace("|", "\\|") for text in row] for row in (header, *body)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])

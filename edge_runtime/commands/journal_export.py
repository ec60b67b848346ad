"""Decisions out of a journal into a file: CSV, JSON lines, or Parquet."""

import csv
import dataclasses
import enum
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_runtime.errors import ConfigError, MissingExtra, SinkError
from edge_runtime.files import replacing
from edge_runtime.records import Decision
from edge_runtime.sinks.journal_read import Reader, Told

_COLUMNS: dict[str, type] = {
    "seq": int, "wall_time": str, "station": str, "part_id": str, "verdict": str, "cause": str, "reason": str, "score": float,
    "threshold": float, "severity": float, "recipe": str, "bundle_id": str, "regions": str, "frame_width": int, "frame_height": int,
    "source": str, "grab_ms": float, "predict_ms": float, "total_ms": float, "plc_told": str, "plc_told_at": str,
    "plc_acknowledged_at": str, "label": str, "label_by": str, "label_at": str, "label_why": str,
}  # fmt: skip
_AT_ONCE = 5000


class Format(enum.StrEnum):
    """What a file may be."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def export(reader: Reader, out: Path, kind: Format | None = None) -> int:
    """Write them; how many. `out` "-": standard output. Raises ConfigError, SinkError, MissingExtra."""
    if kind is None:
        if out.suffix[1:] not in list(Format):
            raise ConfigError(f"{out}: expected a name that ends with .csv, .jsonl or .parquet; or say --format")
        kind = Format(out.suffix[1:])
    if kind is Format.PARQUET:
        return _parquet(reader, out)
    write = _csv if kind is Format.CSV else _json_lines
    if str(out) == "-":
        if sys.stdout is None:
            raise SinkError("-: expected standard output to write to, found it closed")
        return write(reader, sys.stdout)
    with _new(out) as file:
        return write(reader, file)


def flat(decision: Decision, told: Told) -> dict[str, Any]:
    """One row of a table: names and values."""
    s = decision.stamps
    return {
        "seq": decision.seq, "wall_time": decision.wall_time, "station": decision.station, "part_id": decision.part_id,
        "verdict": decision.verdict.value, "cause": decision.cause.name if decision.cause else "", "reason": decision.reason,
        "score": decision.score, "threshold": decision.threshold, "severity": decision.severity, "recipe": decision.recipe,
        "bundle_id": decision.bundle_id, "regions": msgspec.json.encode(decision.regions).decode(),
        "frame_width": decision.frame_wh[0], "frame_height": decision.frame_wh[1], "source": decision.source,
        "grab_ms": _ms(s.fired_ns, s.grabbed_ns), "predict_ms": _ms(s.grabbed_ns, s.predicted_ns), "total_ms": _ms(s.fired_ns, s.told_ns),
        **dataclasses.asdict(told),
    }  # fmt: skip


def _ms(from_ns: int, to_ns: int) -> float | None:
    return (to_ns - from_ns) / 1e6 if from_ns and to_ns else None


def _csv(reader: Reader, file: IO[str]) -> int:
    table = csv.DictWriter(file, list(_COLUMNS))
    table.writeheader()
    count = 0
    for pair in reader:
        table.writerow(flat(*pair))
        count += 1
    return count


def _json_lines(reader: Reader, file: IO[str]) -> int:
    count = 0
    for decision, told in reader:
        count += 1
        file.write(msgspec.json.encode(msgspec.to_builtins(decision) | dataclasses.asdict(told)).decode() + "\n")
    return count


def _parquet(reader: Reader, out: Path) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as e:
        raise MissingExtra("Parquet", "parquet") from e
    kinds = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in _COLUMNS.items()])
    count = 0
    if str(out) == "-":
        raise ConfigError("expected a file for Parquet, found standard output")
    try:
        with replacing(out) as file, parquet.ParquetWriter(file, schema) as table:
            for rows in _batches(reader):
                table.write_table(arrow.Table.from_pylist(rows, schema))
                count += len(rows)
    except OSError as e:
        raise SinkError(f"{out}: cannot be written: {e.strerror or e}") from e
    return count


def _batches(reader: Reader) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for pair in reader:
        rows.append(flat(*pair))
        if len(rows) == _AT_ONCE:
            yield rows
            rows = []
    yield rows


@contextmanager
def _new(out: Path) -> Iterator[IO[str]]:
    try:
        with replacing(out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            yield text
            text.flush()
            text.detach()
    except OSError as e:
        raise SinkError(f"{out}: cannot be written: {e.strerror}") from e

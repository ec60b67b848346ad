"""A journal in figures: yield, rejects by hour and reason, faults by cause, times."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from edge_runtime.commands.journal_export import flat
from edge_runtime.records import Verdict
from edge_runtime.sinks.journal_read import Reader

_NUMBER = re.compile(r"\d+(\.\d+)?")
_STAGES = ("grab_ms", "predict_ms", "total_ms")
_PERCENTILES = (50, 95, 99, 100)


@dataclass(slots=True)
class Stats:
    """What is counted."""

    parts: int = 0
    first: str = ""
    last: str = ""
    verdicts: Counter[str] = field(default_factory=Counter)
    accepted_share: float | None = None
    """That of the parts that were judged, without faults."""
    by_hour: dict[str, dict[str, int]] = field(default_factory=dict)
    """By the hour of this machine's time, "2026-11-29 14": how many of each verdict."""
    rejects_by_reason: Counter[str] = field(default_factory=Counter)
    """By the reason's words; "#" stands for its numbers."""
    faults_by_cause: Counter[str] = field(default_factory=Counter)
    not_acknowledged: int = 0
    """Parts whose result the PLC was told and has not acknowledged, of a line that acknowledges."""
    labelled: Counter[str] = field(default_factory=Counter)
    """Verdicts that somebody said were wrong: false_reject, missed_defect."""
    percentiles_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Those of parts that were judged: the trigger to the picture, to the model's answer, to the telling."""


def stats_of(reader: Reader) -> Stats:
    """Read them all. Raises SinkError."""
    found = Stats()
    times: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    told = acknowledged = 0
    for decision, of_it in reader:
        found.parts += 1
        found.first = found.first or decision.wall_time
        found.last = decision.wall_time
        found.verdicts[decision.verdict.value] += 1
        hour = found.by_hour.setdefault(_hour(decision.wall_time), dict.fromkeys(Verdict, 0))
        hour[decision.verdict] += 1
        if of_it.label:
            found.labelled[of_it.label] += 1
        told += bool(of_it.plc_told_at)
        acknowledged += bool(of_it.plc_acknowledged_at)
        if decision.verdict is Verdict.REJECT:
            found.rejects_by_reason[_NUMBER.sub("#", decision.reason)] += 1
        if decision.verdict is Verdict.FAULT:
            found.faults_by_cause[decision.cause.name] += 1
            continue
        row = flat(decision, of_it)
        for stage in _STAGES:
            if row[stage] is not None:
                times[stage].append(row[stage])
    judged = found.verdicts[Verdict.ACCEPT] + found.verdicts[Verdict.REJECT]
    found.accepted_share = found.verdicts[Verdict.ACCEPT] / judged if judged else None
    found.not_acknowledged = told - acknowledged if acknowledged else 0
    found.percentiles_ms = {stage: _percentiles(values) for stage, values in times.items() if values}
    return found


def lines_of(stats: Stats) -> list[str]:
    """For a person."""
    if not stats.parts:
        return ["no decisions"]
    share = f", {stats.accepted_share:.2%} of those judged accepted" if stats.accepted_share is not None else ""
    counts = ", ".join(f"{stats.verdicts[verdict]} {verdict}" for verdict in Verdict)
    lines = [f"{stats.parts} parts from {stats.first} to {stats.last}: {counts}{share}"]
    if stats.not_acknowledged:
        lines.append(f"{stats.not_acknowledged} results that the PLC was told and did not acknowledge")
    for label, count in stats.labelled.items():
        lines.append(f"{count} verdicts that somebody said were wrong: {label.replace('_', ' ')}")
    for stage, of_it in stats.percentiles_ms.items():
        lines.append(f"{stage:<11} " + ", ".join(f"{name} {value:.1f}" for name, value in of_it.items()))
    for title, counted in (("rejects by reason", stats.rejects_by_reason), ("faults by cause", stats.faults_by_cause)):
        lines += [f"{title}:", *(f"{count:>8} {what}" for what, count in counted.most_common())] if counted else []
    lines.append(f"{'hour':<13} {'ACCEPT':>8} {'REJECT':>8} {'FAULT':>8}")
    lines += [f"{hour:<13} " + " ".join(f"{counted[verdict]:>8}" for verdict in Verdict) for hour, counted in stats.by_hour.items()]
    return lines


def _hour(wall_time: str) -> str:
    try:
        return datetime.fromisoformat(wall_time).astimezone().strftime("%Y-%m-%d %H")
    except (ValueError, OverflowError):
        return "?"


def _percentiles(values: list[float]) -> dict[str, float]:
    found = np.percentile(np.array(values), _PERCENTILES)
    return {"max" if p == 100 else f"p{p}": float(v) for p, v in zip(_PERCENTILES, found, strict=True)}

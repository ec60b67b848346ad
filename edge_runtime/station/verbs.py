"""What the control socket answers for everybody who operates a line: how the station is, alarms, and verdicts that were wrong."""

from typing import Annotated, Any, Literal

import msgspec

from edge_runtime.credentials import Role
from edge_runtime.errors import ConfigError
from edge_runtime.records import Health, Verdict
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.notes import ALARM, LABEL, Note
from edge_runtime.station.control import Caller, Verb
from edge_runtime.station.health import HealthMonitor

_WRONG = {"false_reject": Verdict.REJECT, "missed_defect": Verdict.ACCEPT}


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class Acknowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An alarm that somebody has taken note of."""

    problem: Annotated[str, msgspec.Meta(max_length=2000)]
    """The sentence, as health has it."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict that was wrong."""

    seq: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    """The decision's number."""
    kind: Literal["false_reject", "missed_defect"]


class AcknowledgeJournal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong with the journal, as somebody has seen it; and that the machine's clock is right."""

    findings: Annotated[list[Annotated[str, msgspec.Meta(max_length=4000)]], msgspec.Meta(max_length=1001)] = []
    """Sentences of `lineside journal verify`; none: those that the station itself shows."""


class Operating:
    """The handlers, with what they need."""

    def __init__(self, monitor: HealthMonitor, journal: Journal) -> None:
        self._monitor, self._journal = monitor, journal

    def verbs(self) -> list[Verb[Any]]:
        """For the control socket."""
        return [
            Verb("status", Role.OBSERVE, Nothing, self._status),
            Verb("acknowledge", Role.OPERATE, Acknowledge, self._acknowledge),
            Verb("label", Role.OPERATE, Label, self._label),
            Verb("acknowledge_journal", Role.ENGINEER, AcknowledgeJournal, self._acknowledge_journal),
        ]

    def _status(self, _: Nothing, caller: Caller) -> Health:
        return self._monitor.snapshot()

    def _acknowledge(self, asked: Acknowledge, caller: Caller) -> Note:
        self._monitor.acknowledge(asked.problem, caller.person or caller.name)
        return self._noted(ALARM, Note(kind="acknowledged", who=caller.name, person=caller.person, why=caller.why, problem=asked.problem))

    def _acknowledge_journal(self, asked: AcknowledgeJournal, caller: Caller) -> dict[str, list[str]]:
        findings = asked.findings or self._journal.damage
        self._journal.acknowledge(f"{caller.person} ({caller.name})" if caller.person else caller.name, caller.why, findings)
        return {"findings": findings}

    def _label(self, asked: Label, caller: Caller) -> Note:
        found = read_decisions(self._journal.path, asked.seq - 1, 1)
        if not found or found[0].seq != asked.seq:
            raise ConfigError(f"seq: expected the number of a decision in the journal, found {asked.seq}, which is not there")
        verdict, wanted = found[0].verdict, _WRONG[asked.kind]
        if verdict is not wanted:
            raise ConfigError(f"{asked.kind}: expected a decision that is {wanted}, found {asked.seq} is {verdict}")
        note = Note(
            kind=asked.kind, who=caller.name, person=caller.person, why=caller.why, seq=asked.seq, part_id=found[0].part_id,
        )  # fmt: skip
        return self._noted(LABEL, note)

    def _noted(self, kind: str, note: Note) -> Note:
        said = {name: value for name, value in msgspec.structs.asdict(note).items() if value and name != "seq"}
        self._journal.write_down(kind, note.seq, **said)
        return note

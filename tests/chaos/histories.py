"""Three histories of one line side by side (PLC, journal, subscribers), and every sentence in which they disagree. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.records import Cause, Decision, Verdict

LATE_MS = 5.0
Event = Mapping[str, Any]


def broken_laws(
    events: Sequence[Event], decisions: Sequence[Decision], subscribers: Mapping[str, Sequence[Event]], deadline_ms: float
) -> list[str]:
    """What was broken, a sentence each; empty where nothing was.

    Args:
        events: the PLC's own record, in order (tests/chaos/plc.py).
        decisions: the journal.
        subscribers: what each was handed over all its lives (tests/chaos/subscriber.py).
        deadline_ms: from the PLC's own edge, of an accept.
    """
    return [
        *_journal(decisions), *_parts(events, decisions), *_results(events, decisions, deadline_ms), *_pictures(decisions),
        *(sentence for name, handed in subscribers.items() for sentence in _subscriber(name, handed, decisions)),
    ]  # fmt: skip


def _journal(decisions: Sequence[Decision]) -> list[str]:
    seqs = [d.seq for d in decisions]
    wrong = [f"journal: {b} follows {a}" for a, b in zip([0, *seqs], seqs, strict=False) if b != a + 1]
    often = Counter(d.part_id for d in decisions if d.part_id)
    return wrong + [f"part {part}: {n} decisions" for part, n in often.items() if n > 1]


def _parts(events: Sequence[Event], decisions: Sequence[Decision]) -> list[str]:
    """Each part that the station acknowledged has its decision."""
    decided = {d.part_id for d in decisions}
    return [f"part {e['part']}: acknowledged, and no decision" for e in events if e["event"] == "taken" and str(e["part"]) not in decided]


def _results(events: Sequence[Event], decisions: Sequence[Decision], deadline_ms: float) -> list[str]:
    journal = {d.part_id: d for d in decisions}
    raised = {e["part"]: e["ns"] for e in events if e["event"] == "raised"}
    wrong, seen = [], Counter[int]()
    for e in (e for e in events if e["event"] == "result"):
        part, verdicts = e["part"], e["verdicts"]
        seen[part] += 1
        if len(verdicts) != 1:
            wrong.append(f"part {part}: the PLC read {' and '.join(verdicts) or 'no verdict'} at once")
            continue
        decision = journal.get(str(part))
        if decision is None:
            wrong.append(f"part {part}: the PLC read {verdicts[0]}, and no row says so")
        elif verdicts[0] not in (decision.verdict.value, "FAULT") and not _told_unwritten(verdicts[0], decision):
            wrong.append(f"part {part}: the PLC read {verdicts[0]}, the journal says {decision.verdict.value}")
        late_ms = (e["ns"] - raised[part]) / 1e6 if part in raised else 0.0
        if verdicts[0] == "ACCEPT" and late_ms > deadline_ms + LATE_MS:
            wrong.append(f"part {part}: ACCEPT {late_ms:.0f} ms after its edge")
    return wrong + [f"part {part}: {n} results" for part, n in seen.items() if n > 1]


def _told_unwritten(verdict: str, decision: Decision) -> bool:
    """A reject waits for no row: of one whose row a kill took, the next start knows that it was announced. An accept never may."""
    return verdict == "REJECT" and decision.cause is Cause.ENDED


def _pictures(decisions: Sequence[Decision]) -> list[str]:
    """Each picture's file says in its name what it shows."""
    allowed = {"good": Verdict.ACCEPT, "bad": Verdict.REJECT, "half": Verdict.FAULT}
    wrong = []
    for d in decisions:
        shows = d.source.rpartition("/")[2].partition("_")[0]
        if not d.source and d.verdict is Verdict.REJECT:
            continue  # told before its row was there, which a kill then took: the next start knows the verdict alone
        if d.verdict is not Verdict.FAULT and d.verdict is not allowed.get(shows):
            wrong.append(f"part {d.part_id}: {d.verdict.value} of {d.source}")
    return wrong


def _subscriber(name: str, handed: Sequence[Event], decisions: Sequence[Decision]) -> list[str]:
    """In order, each once, none missing, as the journal has it."""
    journal = {d.seq: d for d in decisions}
    wrong = [f"{name}: lost {e['first_seq']} to {e['last_seq']}: {e['reason']}" for e in handed if "seq" not in e]
    seqs = [e["seq"] for e in handed if "seq" in e]
    if seqs != [d.seq for d in decisions]:
        missing, more = sorted(set(journal) - set(seqs)), [seq for seq, n in Counter(seqs).items() if n > 1]
        wrong.append(f"{name}: not handed {missing[:20]}, handed twice {more[:20]}, or out of order")
    wrong += [
        f"{name}: {e['seq']} was {e['verdict']} of part {e['part_id']}, the journal has another"
        for e in handed
        if "seq" in e
        and e["seq"] in journal
        and (e["verdict"], e["part_id"]) != (journal[e["seq"]].verdict.value, journal[e["seq"]].part_id)
        and not _told_unwritten(e["verdict"], journal[e["seq"]])
    ]
    return wrong

"""How a station is now, in a few lines: its last word of health."""

import time
from datetime import timedelta

from rich.text import Text

from edge_runtime.client import DecisionClient
from edge_runtime.credentials import Credentials
from edge_runtime.errors import Refused, WireError
from edge_runtime.records import Health, Release, State

_RELEASE = {Release.RELEASED: "green", Release.UNKNOWN: "yellow", Release.REFUSED: "bold red"}
_STYLES = {State.READY: "bold green", State.DEGRADED: "bold black on yellow"}


def health_of(endpoint: str, timeout_s: float = 3.0, key: Credentials | None = None) -> Health:
    """The next health record that the station with this [publisher] endpoint sends; it sends one a second.

    Raises WireError when none came in time, or what came is no station's of this version; ConfigError for an address that is none,
    Refused where the station does not let this client in.
    """
    until = time.monotonic() + timeout_s
    with DecisionClient(endpoint, key=key) as client:
        while client.health is None and (left := until - time.monotonic()) > 0:
            client.receive(min(left, 0.1))
        if client.health is None and client.doubt:
            raise Refused(client.doubt)
        if client.health is None:
            raise WireError(
                f"expected a word of health from {endpoint} within {timeout_s:g} s, none came; is the station running, and is this its "
                "[publisher] endpoint?"
            )
        return client.health


def lines_of(health: Health) -> list[Text]:
    """State, problems, what is judged, counts, times, connections: for a person."""
    up = timedelta(seconds=round(health.uptime_s))
    lines = [Text.assemble(f"{health.station}: ", (health.state.value, _STYLES.get(health.state, "bold")), f", up {up}")]
    lines += [Text(f"✗ {problem}", style="red") for problem in health.problems]
    inference = f", cameras' models {health.inference}" if health.inference else ""
    recipes, bundles = ", ".join(dict.fromkeys(health.recipes)), ", ".join(id_[:12] for id_ in dict.fromkeys(health.bundle_ids))
    lines.append(Text(f"recipe {recipes}, bundle {bundles}, on {health.device}{inference}"))
    lines += [Text(origin) for origin in dict.fromkeys(health.origins) if origin != "recipe file"]
    if (release := health.release) is not None:
        lines.append(Text(f"{release.word}: {release.why}", style=_RELEASE[release.word]))
    lines.append(Text(f"{_named(health.counts)}; last decision {health.last_seq}"))
    if waiting := {name: count for name, count in health.queues.items() if count}:
        lines.append(Text(f"waiting: {_named(waiting)}"))
    times = [f"{stage} {median:.1f} ms (p99 {p99:.1f})" for stage, (median, p99) in health.stages_ms.items()]
    lines += [Text(", ".join(times))] if times else []
    lines += [Text(f"{name}: {_named(tallies)}") for name, tallies in health.connections.items()]
    if (drift := health.drift) is not None and drift.median is not None:
        lines.append(Text(f"good parts score {drift.median:.3g} in the median, {drift.usual_median:.3g} when the detector was taught"))
    lines += [Text(f"{shadow.camera} shadow: {shadow.sentence}".strip()) for shadow in health.shadows]
    if (sight := health.sight) is not None:
        noisy = "" if sight.noise is None else f" and {sight.noise:.2f} as noisy"
        sharp = f"{'' if noisy else ' and'} {sight.sharpness:.2f} as sharp"
        bright = f"{sight.brightness:.2f} as bright{',' if noisy else ''}"
        lines.append(Text(f"pictures are {bright}{sharp}{noisy} as taught{_place(sight.off)}"))
    return lines


def _place(off: dict[str, float]) -> str:
    """Where parts lie, of the ways that are watched."""
    words = {"x": ("right", "left"), "y": ("down", "up"), "turn": ("counterclockwise", "clockwise")}
    said = [
        f"{abs(value):.1f}° {words[way][value < 0]}" if way == "turn" else f"{100 * abs(value):.1f} % {words[way][value < 0]}"
        for way, value in off.items()
        if way in words
    ]
    return f"; parts lie {', '.join(said)} of where they were taught" if said else ""


def _named(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in numbers.items())

"""An envelope as a build measures it, which tests of the station change."""

from edge_runtime.model.manifest import Envelope, Wander


def row(what: str, amount: float, holds: bool) -> Wander:
    return Wander(what=what, amount=amount, image_auroc=1.0, rejected=0.0 if holds else 1.0, missed=0.0, holds=holds)  # type: ignore[arg-type]


ENVELOPE = Envelope(
    rows=(
        row("clean", 0, True), row("light", 0.7, False), row("light", 1.3, True), row("blur", 1, False), row("shift", 0.01, True),
        row("shift", 0.02, False), row("turn", 1, False), row("noise", 2, True), row("jpeg", 90, True), row("jpeg", 40, True),
    ),
    basis="real", n_good=60, n_bad=40, brightness=100.0, sharpness=0.5, light_low=0.91, light_low_breaks="rejects", light_high=1.2,
    light_high_breaks="misses", blur_low=0.6, blur_breaks="both",
)  # fmt: skip

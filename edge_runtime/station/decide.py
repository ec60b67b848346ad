"""From what each camera saw of a part to the one decision. Pure but for the clock.

Why: deploy/decisions/0016.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from edge_runtime.records import Decision, Picture, Stamps, Trigger, Verdict, View
from edge_runtime.station.judge import Judgement
from edge_runtime.station.products import Product
from edge_runtime.station.views import Inspection


def deciding(looks: Sequence[Inspection]) -> Inspection:
    """Whose look is the part's: any REJECT rejects; else any FAULT is a FAULT; else all accept. The worst by severity speaks.

    A REJECT comes before a FAULT: no further picture can make a part good in which one camera saw a defect, so it leaves the line as
    what it is, and the camera that failed shows as such in the decision's views and in health. Without a REJECT the part may be bad
    where nobody looked: a FAULT, never an ACCEPT.
    """
    rank = {Verdict.REJECT: 2, Verdict.FAULT: 1, Verdict.ACCEPT: 0}
    return max(looks, key=lambda look: (rank[look.judgement.verdict], look.judgement.severity or 0.0))


def judgement_of(looks: Sequence[Inspection]) -> Judgement:
    """Of the part. Several cameras are named in its reason."""
    first = deciding(looks)
    if len(looks) == 1:
        return first.judgement
    j = first.judgement
    reason = f"{first.camera}: {j.reason}"
    others = [look for look in looks if look is not first]
    if rejecting := [look.camera for look in others if look.judgement.verdict is Verdict.REJECT]:
        reason += f" Rejected by {' and '.join(rejecting)} as well."
    for look in others:
        if look.judgement.verdict is Verdict.FAULT:
            reason += f" Not judged by {look.camera}: {look.judgement.reason}"
    return Judgement(j.verdict, reason, j.regions, j.severity, j.cause)


def decision_of(
    station: str, trigger: Trigger, product: Product | None, judgement: Judgement, looks: Sequence[Inspection], decided_ns: int
) -> Decision:
    """The record of `judgement`, with what the deciding look saw. No looks: no camera was asked; no product: nobody knows the recipe."""
    if looks:
        view = deciding(looks).view
    elif product is not None:
        view = Inspection("", product.jobs[0], judgement).view
    else:
        view = View("", judgement.verdict, "", None, 0.0, None, (), (0, 0), "", trigger.recipe)
    return Decision(
        station=station, seq=trigger.seq, part_id=trigger.part_id, verdict=judgement.verdict, reason=judgement.reason,
        score=None if judgement.verdict is Verdict.FAULT else view.score, threshold=view.threshold, severity=judgement.severity,
        regions=judgement.regions, frame_wh=view.frame_wh, bundle_id=view.bundle_id, recipe=view.recipe,
        stamps=Stamps(trigger.fired_ns, view.captured_ns, view.grabbed_ns, view.predicted_ns, decided_ns, time.monotonic_ns()),
        wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"), cause=judgement.cause,
        views=tuple(look.view for look in looks) if len(looks) > 1 else (), source=view.source,
    )  # fmt: skip


def pictures_of(looks: Sequence[Inspection]) -> tuple[Picture, ...]:
    """For whoever looks on, the deciding one first."""
    first = deciding(looks) if looks else None
    return tuple(Picture(look.camera, look.frame, look.prediction) for look in sorted(looks, key=lambda look: look is not first))


def camera_and_model_ns(looks: Sequence[Inspection]) -> tuple[int, int]:
    """What of a part's time was the camera's and the model's; of several, those of the view that was there last."""
    if len(looks) == 1:
        return looks[0].grab_ns, looks[0].predict_ns
    last = max(looks, key=lambda look: look.predicted_ns, default=None)
    return (0, 0) if last is None or not last.predicted_ns else (last.grab_ns, last.predicted_ns - last.grabbed_ns)

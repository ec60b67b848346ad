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


def deciding(inspections: Sequence[Inspection]) -> Inspection:
    """The one that decides: any REJECT rejects; else any FAULT is a FAULT; else all accept. The worst by severity speaks.

    A REJECT comes before a FAULT: no further picture can make a part good in which one camera saw a defect, so it leaves the line as
    what it is, and the camera that failed shows as such in the decision's views and in health. Without a REJECT the part may be bad
    where nobody looked: a FAULT, never an ACCEPT.
    """
    if len(inspections) == 1:
        return inspections[0]
    return max(inspections, key=lambda one: one.view.weight)


def judgement_of(inspections: Sequence[Inspection]) -> Judgement:
    """The part's judgement, from those of its cameras; several are named in its reason."""
    first = deciding(inspections)
    if len(inspections) == 1:
        return first.judgement
    j = first.judgement
    reason = f"{first.camera}: {j.reason}"
    others = [one for one in inspections if one is not first]
    if rejecting := [one.camera for one in others if one.judgement.verdict is Verdict.REJECT]:
        reason += f" Rejected by {' and '.join(rejecting)} as well."
    for one in others:
        if one.judgement.verdict is Verdict.FAULT:
            reason += f" Not judged by {one.camera}: {one.judgement.reason}"
    return Judgement(j.verdict, reason, j.regions, j.severity, j.cause)


def unseen(cameras: Sequence[str], product: Product | None, judgement: Judgement, recipe: str) -> tuple[View, ...]:
    """The views of a part that no camera was asked for, each with `judgement`; without a product nobody knows the named `recipe`."""
    if product is None:
        return tuple(View(camera, judgement.verdict, judgement.reason, None, 0.0, None, (), (0, 0), "", recipe) for camera in cameras)
    return tuple(Inspection(camera, job, judgement).view for camera, job in zip(cameras, product.jobs, strict=True))


def decision_of(station: str, trigger: Trigger, judgement: Judgement, views: tuple[View, ...], decided_ns: int) -> Decision:
    """The record of `judgement`, with what the deciding one of `views` saw."""
    view = views[0] if len(views) == 1 else max(views, key=lambda view: view.weight)
    return Decision(
        station=station, seq=trigger.seq, part_id=trigger.part_id, verdict=judgement.verdict, reason=judgement.reason,
        score=None if judgement.verdict is Verdict.FAULT else view.score, threshold=view.threshold, severity=judgement.severity,
        regions=judgement.regions, frame_wh=view.frame_wh, bundle_id=view.bundle_id, recipe=view.recipe,
        stamps=Stamps(trigger.fired_ns, view.captured_ns, view.grabbed_ns, view.predicted_ns, decided_ns, time.monotonic_ns()),
        wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"), views=views, cause=judgement.cause,
        source=view.source,
    )  # fmt: skip


def pictures_of(views: Sequence[View], inspections: Sequence[Inspection]) -> tuple[Picture, ...]:
    """The sinks' pictures, one a view in the same order; without a frame where no camera was asked."""
    if not inspections:
        return tuple(Picture(view.camera, None, None) for view in views)
    return tuple(Picture(one.camera, one.frame, one.prediction) for one in inspections)


def camera_and_model_ns(inspections: Sequence[Inspection]) -> tuple[int, int]:
    """(camera, model): what of a part's time was theirs, in nanoseconds; with several cameras, of the view that was there last."""
    if len(inspections) == 1:
        return inspections[0].grab_ns, inspections[0].predict_ns
    last = max(inspections, key=lambda one: one.predicted_ns, default=None)
    return (0, 0) if last is None or not last.predicted_ns else (last.grab_ns, last.predicted_ns - last.grabbed_ns)

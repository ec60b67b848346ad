"""What an engineer should know of a data set before teaching from it: counts, sizes, and all that is wrong, not only the first thing."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_runtime.errors import ConfigError, DataError
from training.calibrate.suspects import say_suspects
from training.data.annotations import with_marks
from training.data.duplicates import find_pairs, say_different
from training.data.facts import Facts, bits_for, facts_of, say_turned
from training.data.formats import find
from training.data.layout import Found, Sample, find_bad, first_of
from training.data.left_out import say_left_out, say_pages
from training.data.masks import Survey, beyond, say_sizes, settle, size_of_truth
from training.data.promise import say_alike, say_cameras, say_drawn, say_file_kinds, say_flat, say_lacking, say_loss
from training.inspect.pose import LEAST, LOOKED_AT, advise, describe, pose_of, spread
from training.inspect.swapped import MOST, doubtful, say_few_good, say_swapped

BROKEN = "the layout is broken"
UNREADABLE = "cannot be read"
OUTLIER = 6.0
"""Robust standard deviations from the median brightness of good images at which one is remarked."""
OUTLIER_LEAST = 10.0
"""In grey levels of 255; below, nobody would see it."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """One kind in one split."""

    split: str
    kind: str
    images: int
    masks: int
    empty_masks: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong."""

    what: str
    items: list[str]
    """A line for each of them."""


class PoseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How the good parts to learn from lie, and what `fit` takes because of it."""

    explained: float
    """See `training.inspect.pose.Pose`."""
    shift: float | None
    light: float
    method: str
    preset: str
    why: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `lineside-train inspect --json` prints."""

    data: str
    format: str
    counts: list[Count]
    sizes_wh: list[tuple[int, int]]
    """All that occur, the most frequent first."""
    gray: int
    """Files with one channel, or with three that are equal."""
    colour: int
    bits: list[int]
    """Significant bits by the brightest pixel of all files of one depth: [8], [12], or both where depths are mixed."""
    findings: list[Finding]
    remarks: list[str]
    lie: PoseSummary | None = None
    """None for fewer than 8 good images."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A summary, and the images that it is of."""

    summary: Summary
    samples: tuple[Sample, ...]
    """The samples that can be read, training images first."""
    empty: frozenset[Path]
    """Images whose masks mark nothing."""
    facts: Mapping[Path, Facts]
    """The facts of each sample: `load_dataset` need not decode them again."""
    reversed: str = ""
    """A sentence where good and bad may stand for each other, which is not learnt from; else empty."""


def inspect_data(
    path: Path,
    *,
    bad: Path | None = None,
    masks: Path | None = None,
    few_good: bool = False,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Look at every image and mask of a data set, and go on past what is wrong.

    Args:
        path, bad, masks, few_good: as of `training.data.dataset.load_dataset`.
        told: of how many images of how many are done.

    Raises:
        DataError: no data set there at all.
        ConfigError: `masks` without `bad`.
    """
    if masks is not None and bad is None:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    found = find(path)
    given, more_orphans = find_bad(bad, masks)
    given = with_marks(given, bad)
    samples = (*found.samples, *given)
    looked = facts_of([s.path for s in samples], lambda done: told(done, len(samples)))
    pairs = [(s, f) for s, f in zip(samples, looked, strict=True) if isinstance(f, Facts)]
    kept, facts = tuple(s for s, _ in pairs), [f for _, f in pairs]

    findings = [Finding(what=BROKEN, items=list(found.problems))]
    reversed_ = "" if few_good else found.reversed or _few_good(found, kept, facts)
    findings.append(Finding(what="good and bad may be swapped: not learnt from", items=[reversed_] if reversed_ else []))
    findings.append(Finding(what=UNREADABLE, items=[str(f) for f in looked if isinstance(f, DataError)]))
    copies, again = _copies(kept, facts)
    learnt = sum(s.is_good and s.split == "train" for s in kept)
    alike = [f"good images: {say_different(learnt, learnt - len(again))}; a promise rests on those that differ"] if again else []
    findings += copies
    kept, masks_found = settle(kept)
    wrong, empty = _masks(kept, facts, masks_found)
    findings += wrong
    findings.append(Finding(what="masks without an image", items=[str(p) for p in (*found.orphans, *more_orphans)]))
    findings += _mixed(kept, facts)
    lacking = say_lacking([s for s in kept if s.split == "test"], given)
    if not any(s.is_good and s.split == "train" for s in kept):
        findings.append(
            Finding(what="no good image to learn from", items=[f"expected some in train/good, or in a folder of good ones, of {path}"])
        )
    if flat := say_flat([f for s, f in zip(kept, facts, strict=True) if s.is_good and s.split == "train"]):
        findings.append(Finding(what="pictures that show nothing", items=[flat]))
    if drawn := say_drawn(kept, facts):
        findings.append(Finding(what="masks among good images", items=[drawn]))
    if told_by_kind := say_file_kinds(kept):
        findings.append(Finding(what="files of different kinds", items=[told_by_kind]))
    if swapped := _swapped(kept, facts):
        findings.append(Finding(what="test split that may be the wrong way round", items=[swapped]))
    elif questioned := _doubtful(kept, facts):
        findings.append(Finding(what="labels that may be wrong", items=[questioned]))
    summary = Summary(
        data=str(path),
        format=found.format,
        counts=_counts(kept, empty),
        sizes_wh=[wh for wh, _ in Counter(f.wh for f in facts).most_common()],
        gray=sum(f.channels == 1 or f.colourless for f in facts),
        colour=sum(f.channels == 3 and not f.colourless for f in facts),
        bits=sorted({bits_for(max(f.largest for f in facts if f.dtype == d)) if d == "uint16" else 8 for d in {f.dtype for f in facts}}),
        findings=[f for f in findings if f.items],
        remarks=[*_remarks(found, kept, facts), *lacking, *masks_found.notes, *(say_left_out(bad) if bad is not None else []), *alike],
        lie=_lie(kept, facts, again),
    )
    return Inspection(summary, kept, empty, {s.path: f for s, f in zip(kept, facts, strict=True)}, reversed_)


def show(summary: Summary, console: Console) -> None:
    """Print it for people; of what cannot be read every file is named, of all else the first five."""
    sizes = [f"{w}x{h}" for w, h in sorted(summary.sizes_wh, key=lambda wh: wh[0] * wh[1])]
    size = f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else "".join(sizes)
    kinds = [f"{n} {what}" for n, what in ((summary.gray, "gray"), (summary.colour, "in colour")) if n]
    seen = ", ".join([size, *kinds, f"{' and '.join(map(str, summary.bits))} bits"]) if sizes else "no image that can be used"
    console.print(f"{summary.data}: {summary.format}; {seen}\n")
    table = Table(box=None, pad_edge=False)
    for name in ("split", "kind"):
        table.add_column(name)
    for name in ("images", "masks", "empty"):
        table.add_column(name, justify="right")
    for c in summary.counts:
        table.add_row(c.split, c.kind, str(c.images), str(c.masks or ""), str(c.empty_masks or ""))
    console.print(table)
    for finding in summary.findings:
        console.print(f"\n{len(finding.items)} × {finding.what}")
        shown = finding.items if finding.what in (UNREADABLE, BROKEN) else first_of(finding.items)
        for item in shown:
            console.print(f"  {item}")
        if len(shown) < len(finding.items):
            console.print(f"  … and {len(finding.items) - len(shown)} more; --json names all")
    for remark in summary.remarks:
        console.print(f"\nremark: {remark}")
    if (lie := summary.lie) is not None:
        console.print(f"\n{lie.why}; {describe(lie)}")
    if not summary.findings:
        console.print(f"\n{looked_at(summary)}")


def looked_at(summary: Summary) -> str:
    """What was looked at where nothing was found wrong, and what looking can't tell."""
    n, masks = sum(c.images for c in summary.counts), sum(c.masks for c in summary.counts)
    fit = f", {f'the {masks} masks fit their images' if masks > 1 else 'the mask fits its image'}" if masks else ""
    return (
        f"looked at: all {n} images can be read, no picture is there twice{fit}. Whether every good part is one, only you can see:"
        " fit names those that look unlike the others"
    )


def _few_good(found: Found, samples: tuple[Sample, ...], facts: list[Facts]) -> str:
    """See `say_few_good`; asked of the data's own images alone, since who gives bad ones by --bad has said so twice."""
    rows = [i for i, s in enumerate(samples) if s.split != "bad"]
    smalls = np.stack([facts[i].small for i in rows]) if rows else np.zeros((0, 32, 32), np.float32)
    return say_few_good([samples[i] for i in rows], smalls, by_table=found.format.startswith("a table")) or ""


def _swapped(samples: tuple[Sample, ...], facts: list[Facts]) -> str | None:
    smalls = {s.path: f.small for s, f in zip(samples, facts, strict=True)}
    groups = (
        [s for s in samples if s.split == split and s.is_good == good] for split, good in (("train", True), ("test", True), ("test", False))
    )
    chosen = [[smalls[s.path] for s in spread(group, MOST)] for group in groups]
    return say_swapped(*(np.stack(c) for c in chosen)) if all(chosen) else None


def _doubtful(samples: tuple[Sample, ...], facts: list[Facts]) -> str | None:
    smalls = {s.path: f.small for s, f in zip(samples, facts, strict=True)}
    learn = spread([s for s in samples if s.split == "train" and s.is_good], MOST)
    test = [s for s in samples if s.split == "test"]
    if not learn or not test:
        return None
    is_good = np.array([s.is_good for s in test], dtype=bool)
    found = doubtful(np.stack([smalls[s.path] for s in learn]), np.stack([smalls[s.path] for s in test]), is_good, [s.kind for s in test])
    return say_suspects(test, found, "look")


def _lie(samples: tuple[Sample, ...], facts: list[Facts], copies: frozenset[Path]) -> PoseSummary | None:
    """How parts lie, told from pictures that differ, by whole frames: what a region of interest or tiles show may lie otherwise, which
    `fit` measures again."""
    pairs = zip(samples, facts, strict=True)
    smalls = {s.path: f.small for s, f in pairs if s.is_good and s.split == "train" and s.path not in copies}
    if len(smalls) < LEAST:
        return None
    chosen = spread([s for s in samples if s.path in smalls], LOOKED_AT)
    pose = pose_of(np.stack([smalls[s.path] for s in chosen]))
    advice = advise(pose, len(smalls))
    return PoseSummary(
        explained=round(pose.explained, 3), shift=None if pose.shift is None else round(pose.shift, 4), light=round(pose.light, 3),
        method=advice.method, preset=advice.preset, why=advice.why,
    )  # fmt: skip


def _counts(samples: tuple[Sample, ...], empty: frozenset[Path]) -> list[Count]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for s in samples:
        groups.setdefault((s.split, s.kind), []).append(s)
    order = sorted(groups, key=lambda g: (("train", "test", "bad").index(g[0]), not groups[g][0].is_good, g[1]))
    return [
        Count(
            split=split,
            kind=kind,
            images=len(groups[split, kind]),
            masks=sum(s.has_truth for s in groups[split, kind]),
            empty_masks=sum(s.path in empty for s in groups[split, kind]),
        )
        for split, kind in order
    ]


def _copies(samples: tuple[Sample, ...], facts: list[Facts]) -> tuple[list[Finding], frozenset[Path]]:
    """Findings, and which of the good images that are learnt from are copies of others of them."""
    learnt = [s.is_good and s.split == "train" for s in samples]
    again: set[Path] = set()
    across: list[str] = []
    contradicting: list[str] = []
    within: list[str] = []
    for first, second, same_bytes in find_pairs([s.path for s in samples], facts):
        a, b = samples[first], samples[second]
        if learnt[first] and learnt[second]:
            again.add(b.path)
        line = f"{b.path} is {a.path} ({'the same bytes' if same_bytes else 'nearly the same pixels'})"
        (contradicting if a.is_good != b.is_good else across if a.split != b.split else within).append(line)
    alike = say_alike(sum(learnt), len(again))
    return [
        Finding(what="too few different pictures", items=[alike] if alike else []),
        Finding(what="labelled good and bad", items=contradicting),
        Finding(what="copies across splits: figures would flatter", items=across),
        Finding(what="copies within a split", items=within),
    ], frozenset(again)


def _masks(samples: tuple[Sample, ...], facts: list[Facts], found: Survey) -> tuple[list[Finding], frozenset[Path]]:
    unreadable, sizes, beyonds, empty = [], [], [], []
    for sample, fact in zip(samples, facts, strict=True):
        size = size_of_truth(sample, found)
        if isinstance(size, DataError):
            unreadable.append(str(size))
            continue
        if size is not None and size != fact.wh:
            sizes.append((sample, size, fact.wh))
        elif (outside := beyond(sample, fact.wh)) is not None:
            beyonds.append(outside)
        if sample.mask_path is not None and not found.marked[sample.mask_path]:
            empty.append(sample)
    bare = [s for s in samples if not s.is_good and not s.has_truth]
    some = any(s.has_truth for s in samples)
    findings = [
        Finding(what="masks that cannot be read", items=unreadable),
        Finding(what="masks that cannot be meant so", items=list(found.problems)),
        Finding(what="masks of another size than their image", items=say_sizes(sizes)),
        Finding(what="marks outside of their image", items=beyonds),
        Finding(what="empty masks: these parts count as images, not by their pixels", items=[str(s.mask_path) for s in empty]),
        Finding(what="bad images without a mask, where others have one", items=[str(s.path) for s in bare] if some else []),
    ]
    return findings, frozenset(s.path for s in empty)


def _mixed(samples: tuple[Sample, ...], facts: list[Facts]) -> list[Finding]:
    """What `load_dataset` refuses to learn from together: the rarer of two depths, or of gray and colour."""
    findings = []
    for what, kinds in (
        ("depths are mixed", [f"{8 * np.dtype(f.dtype).itemsize} bits" for f in facts]),
        ("gray and colour are mixed", ["gray" if f.channels == 1 else "colour" if not f.colourless else "" for f in facts]),
    ):
        common = Counter(k for k in kinds if k).most_common()
        rare = {k for k, _ in common[1:]}
        findings.append(Finding(what=what, items=[f"{s.path} ({k})" for s, k in zip(samples, kinds, strict=True) if k in rare]))
    return findings


def _remarks(found: Found, samples: tuple[Sample, ...], facts: list[Facts]) -> list[str]:
    paths = [s.path for s in samples]
    remarks = [*found.notes, *say_turned(paths, facts), *say_pages(paths, [f.pages for f in facts])]
    rows = [(s, float(f.small.mean())) for s, f in zip(samples, facts, strict=True) if s.is_good]
    good = [f for s, f in zip(samples, facts, strict=True) if s.is_good and s.split == "train"]
    remarks += [r for r in (say_cameras([f.wh for f in good]), say_loss([f.loss for f in good])) if r]
    light = np.array([v for _, v in rows])
    if len(light) < 8:
        return remarks
    middle = float(np.median(light))
    # 1.4826 x the median deviation estimates a normal distribution's standard deviation.
    limit = max(OUTLIER * 1.4826 * float(np.median(np.abs(light - middle))), OUTLIER_LEAST)
    odd = [(s, v) for s, v in rows if abs(v - middle) > limit]
    if odd:
        first, value = max(odd, key=lambda o: abs(o[1] - middle))
        remarks.append(
            f"{len(odd)} good images are much brighter or darker than the others, most of all {first.path}"
            f" (mean {value:.0f} of 255, the median of all is {middle:.0f})"
        )
    return remarks


def outline(mask: np.ndarray, size_wh: tuple[int, int]) -> list[np.ndarray]:
    """Contours of an (H, W) mask, in pixels of a picture of `size_wh`; a defect smaller than one of its pixels keeps one."""
    share = cv2.resize((mask > 0).astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    found, _ = cv2.findContours((share > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return list(found)

"""`make benchmark-thresholds`: what shipped thresholds do to parts that nobody taught, beside what they could (training/README.md).

    make benchmark-thresholds                                                      # solar cells (mono, poly) from the elpv-dataset package
    make benchmark-thresholds BENCH="--data PATH/TO/magnetic_tile --data PATH/TO/deeppcb"    # and any folder in MVTec layout

For each case (a set, a method, so many of its good images, a seed, a stated rate) let t* be the threshold at which exactly the stated rate
of the test split's good parts is rejected, interpolated. Undrawn: good images of the training folder that this case was not taught; where
their share that is rejected is another than the test split's, it is the split that differs from what is taught, not the rule. Excess
miss: the share of bad parts missed at the shipped threshold less that at t*.
Everything is as `fit` and `build` do it: brightness, shifted variations, odd ones, the INT8 backbone with the head fitted on its features;
only that these are computed once a set. Some cases go through a bundle and the device's predictor as well, to see that this changes
nothing. Lamps and shifts act on the frames, before anything else, by the code that measures envelopes.
"""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
import typer
from rich.console import Console
from sklearn.metrics import roc_auc_score

from edge_runtime.console import run_app
from edge_runtime.errors import LinesideError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.preprocess import Preprocessor
from export.build import convert
from export.build.build import build
from export.build.options import BuildOptions
from export.build.quantize import pick_images, quantize_backbone
from tests.support.bench_sets import sets_of
from training.calibrate.rules import Rule, Scores, apply_rule, lowest_rate
from training.core.backbones import DEFAULT_BACKBONE, build_backbone
from training.core.base import Features, Head, LevelShape
from training.data.dataset import Dataset, load_dataset
from training.data.facts import load_frame
from training.fitting.heads import fit_held_out
from training.fitting.odd import screen
from training.fitting.options import FitOptions
from training.fitting.remedies import variations, with_brightness
from training.fitting.teach import teach
from training.inspect.choice import AUTO, decide
from training.judging.distort import CLEAN, Condition, Directions, Stage
from training.judging.evaluate import evaluate_bundle
from training.judging.strayed import unseen
from training.methods.table import METHODS
from training.pictures.material import good_pictures

COUNTS = (40, 80, 160, 0)
"""Good images; 0 is all."""
FEW = (8, 16)
DRAWS = {"fastflow": 1}
"""Most draws of a method, where one takes minutes."""
RATES = (0.01, 0.03)
BAD_SHARE = 0.1
THROUGH = (("padim", 160), ("patchcore", 40), ("padim", 40))
"""Methods with so many good images, on each set with the first seed and rate; the last on the first two sets only."""
BEGIN, END = "<!-- thresholds: made by make benchmark-thresholds -->", "<!-- end of thresholds -->"
TABLE = Path("training/README.md")
Image = npt.NDArray[np.uint8]

console = Console(highlight=False, stderr=True)
app = typer.Typer(add_completion=False)


STRAYS = {
    "clean": CLEAN, "light x0.9": Condition("light", 0.9), "light x0.8": Condition("light", 0.8), "shift 2 %": Condition("shift", 0.02)
}  # fmt: skip
WAY = Directions(1, 1, 1, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is taught."""

    dataset: Dataset
    method: str
    preset: str

    @property
    def usual(self) -> bool:
        """Whether naming the method would have led to the same."""
        return self.preset == "fast" and (self.dataset.spec.height, self.dataset.spec.width) == (256, 256)

    @property
    def sees(self) -> str:
        """What its features follow from: methods that have it in common share them."""
        size, strides = (self.dataset.spec.width, self.dataset.spec.height), METHODS[self.method].presets[self.preset][0]
        return f"{size} {strides} {METHODS[self.method].precision(self.preset)} {variations(self.dataset, self.method, self.preset)[0]}"

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.method}/{self.preset}, {self.dataset.spec.width}x{self.dataset.spec.height}"


@dataclass(frozen=True, slots=True)
class Look:
    """A set as one method with its size sees it: INT8 (or float) features of good images with their variations, and of the test split."""

    prepare: Preprocessor
    shapes: list[LevelShape]
    train: list[npt.NDArray[np.float32]]
    copies: int
    test: dict[str, list[npt.NDArray[np.float32]]]
    good: npt.NDArray[np.bool_]
    invented: list[npt.NDArray[np.bool_] | None]
    """For each shifted test image: which of the model's pixels nobody has photographed (training.judging.distort)."""


@app.command()
def benchmark(
    data: Annotated[list[Path] | None, typer.Option(help="Further data sets in MVTec layout.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to work in; cases that are there are not computed again.")] = Path("runs/thresholds"),
    cells: Annotated[bool, typer.Option(help="Solar cells, beside --data.")] = True,
    methods: Annotated[str, typer.Option(help="Methods, and auto.")] = "padim,patchcore,fastflow,auto",
    seeds: Annotated[int, typer.Option(help="Draws of the good images.")] = 3,
    kept: Annotated[bool, typer.Option("--kept", help="Only what is there already.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Put the table into training/README.md.")] = False,
) -> None:
    """Compute all cases, print the table."""
    out.mkdir(parents=True, exist_ok=True)
    sets = sets_of(data, cells, out)
    rows: list[dict[str, Any]] = []
    for name, path in sets.items():
        seen: dict[str, Look] = {}
        for method in methods.split(","):
            rows += cases(name, path, method, min(seeds, DRAWS.get(method, seeds)), out, kept, seen)
    pairs = [p for i, (name, path) in enumerate(sets.items()) for p in through(name, path, THROUGH if i < 2 else THROUGH[:2], out, kept)]
    text = render(rows) + render_pairs(pairs)
    print(text)
    if write:
        before, rest = TABLE.read_text().split(BEGIN)
        TABLE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def cases(name: str, path: Path, method: str, seeds: int, out: Path, kept: bool, seen: dict[str, Look]) -> list[dict[str, Any]]:
    """Every case of one set and method; `seen`: the last look at this set, which other methods may share."""
    rows: list[dict[str, Any]] = []
    whole: Dataset | None = None
    for count in (*(FEW if method == AUTO else ()), *COUNTS):
        for seed in range(seeds if count else 1):
            for mixed in (False, True) if not count and method in ("padim", "patchcore", AUTO) else (False,):
                case_name = f"{count or 'all'}-{seed}{'-mixed' if mixed else ''}.json"
                file = out / f"{name}-{method}-{case_name}"
                if not file.exists() and kept:
                    continue
                if not file.exists():
                    whole = whole or load_dataset(path, image_size=AUTO if method == AUTO else "256", allow_duplicates=True)
                    picks = picked(len(whole.train), count, seed)
                    plan = plan_of(whole, method, picks)
                    began = time.monotonic()
                    if plan.usual and (same := out / f"{name}-{plan.method}-{case_name}").exists():
                        found = json.loads(same.read_text())  # the choice is a case of its own
                    else:
                        if plan.sees not in seen:
                            seen.clear()
                            seen[plan.sees] = look_at(plan)
                        try:
                            found = case(seen[plan.sees], plan, picks, seed, mixed)
                        except LinesideError as e:
                            found = {"failed": str(e)}
                    found |= {"set": name, "method": method, "chosen": plan.name, "count": count, "seed": seed, "mixed": mixed}
                    file.write_text(json.dumps(found))
                    console.print(file.stem, found.get("failed", ""), f"{time.monotonic() - began:.0f} s")
                rows.append(judge(json.loads(file.read_text())))
    return rows


def picked(n: int, count: int, seed: int) -> npt.NDArray[np.intp]:
    """Which of n good images are had; all where `count` is 0."""
    return np.sort(np.random.default_rng([seed, 7]).permutation(n)[: count or n])


def plan_of(whole: Dataset, method: str, picks: npt.NDArray[np.intp]) -> Plan:
    """What `fit` makes of these images, by name or by itself, with all images at that size. Raises DataError."""
    if method != AUTO:
        return Plan(whole, method, "fast")
    choice = decide(dataclasses.replace(whole, train=tuple(whole.train[i] for i in picks)))
    return Plan(dataclasses.replace(choice.dataset, train=whole.train), choice.method, choice.preset)


def look_at(plan: Plan) -> Look:
    """Features of a set as the method sees it."""
    dataset, _ = with_brightness(plan.dataset)
    augment, _ = variations(dataset, plan.method, plan.preset)
    spec, prepare = dataset.spec, dataset.preprocessor()
    backbone = build_backbone(DEFAULT_BACKBONE, METHODS[plan.method].presets[plan.preset][0], None)
    graph = convert.convert_trunk(backbone, spec.height, spec.width).convolutions
    pictures = np.stack(list(good_pictures(dataset.train, prepare, augment, 0)))
    if METHODS[plan.method].precision(plan.preset) == "int8":
        graph = quantize_backbone(graph, pictures, pick_images(len(pictures), 0))
    request = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    shapes = backbone.level_shapes(spec.height, spec.width)

    def levels(some: Iterable[Image], count: int) -> list[npt.NDArray[np.float32]]:
        found = [np.empty((count, *shape), np.float32) for shape in shapes]
        for i, picture in enumerate(some):
            request.infer({0: picture[None]}, share_inputs=True)
            for k, level in enumerate(found):
                level[i] = request.get_output_tensor(k).data[0]
        return found

    stage = Stage(spec)
    frames = [stage.reduce(load_frame(s.path, spec)) for s in dataset.test]
    test = {
        word: levels((plan.prepare(stage.distort(frame, plan, condition, WAY)) for frame, plan in frames), len(frames))
        for word, condition in STRAYS.items()
    }
    invented = [stage.invented(plan, STRAYS["shift 2 %"], WAY) for _, plan in frames]
    good = np.array([s.is_good for s in dataset.test])
    return Look(prepare, shapes, levels(pictures, len(pictures)), augment.copies if augment else 0, test, good, invented)


def case(seen: Look, plan: Plan, picks: npt.NDArray[np.intp], seed: int, mixed: bool) -> dict[str, Any]:
    """What one detector says of good images that it did not learn, and of the test split. Raises LinesideError."""
    each, n = 1 + seen.copies, len(seen.train[0]) // (1 + seen.copies)
    rng = np.random.default_rng([seed, 9])
    train = [level.reshape(n, each, *level.shape[1:])[picks] for level in seen.train]
    undrawn = [level.reshape(n, each, *level.shape[1:])[np.setdiff1d(np.arange(n), picks), 0] for level in seen.train]
    planted, used = np.zeros(len(picks), dtype=bool), np.zeros(len(seen.good), dtype=bool)
    if mixed:
        bad = rng.permutation(np.flatnonzero(~seen.good))[: round(BAD_SHARE * len(picks))]
        at = rng.permutation(len(picks))[: len(bad)]
        used[bad], planted[at] = True, True
        for k, level in enumerate(train):  # the variations of a bad part are taken as the part itself
            level[at] = seen.test["clean"][k][bad][:, None]
    features = Features.of([level.reshape(-1, *level.shape[2:]) for level in train], copies=seen.copies)
    odd = screen(features, seen.shapes, seen.prepare, seed, anyhow=plan.preset == "shared")
    kept = np.flatnonzero(~odd.apart)
    params = asdict(METHODS[plan.method].presets[plan.preset][1])
    fitted = fit_held_out(plan.method, params, seen.shapes, features.only(kept), seen.prepare, seed)
    words = list(STRAYS) if len(picks) == n and not mixed else ["clean"]  # strayed pictures of the whole set's detector alone: time
    return {
        "held_out": list(fitted.held_out.score),
        "scores": strayed(fitted.head, seen, words),
        "undrawn": list(scored(fitted.head, undrawn)[0]) if len(picks) < n else [],
        "good": seen.good.tolist(),
        "bad": (~seen.good & ~used).tolist(),
        "apart": int(odd.apart.sum()),
        "named": int(odd.named.sum()),
        "planted_named": float((odd.named & planted).sum() / planted.sum()) if planted.any() else None,
    }


def scored(head: Head, levels: Sequence[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(n,) scores and (n, gh, gw) maps of single pictures' features."""
    scores, maps = [], []
    with torch.inference_mode():
        for some in Features.of(levels).batches(8):
            score, grid = head(some)
            scores.append(score.numpy())
            maps.append(grid[:, 0].numpy())
    return np.concatenate(scores).astype(np.float64), np.concatenate(maps).astype(np.float64)


def strayed(head: Head, seen: Look, words: Sequence[str]) -> dict[str, list[float]]:
    """What the head says of the test split, by the way of straying. Where a shift shows what nobody photographed, the unmoved picture's
    places stand in, as where an envelope is measured."""
    found = {word: scored(head, seen.test[word]) for word in words}
    for word in found:
        if STRAYS[word].what == "shift":
            for i, pixels in enumerate(seen.invented):
                if pixels is not None:
                    found[word][0][i] *= unseen(found[word][1][i : i + 1], found["clean"][1][i : i + 1], pixels)[0]
    return {word: list(scores) for word, (scores, _) in found.items()}


def through(name: str, path: Path, wanted: Sequence[tuple[str, int]], out: Path, kept: bool) -> list[dict[str, Any]]:
    """What the bundles of some cases say of the test split on the device's side, beside what was computed here."""
    pairs = []
    for method, count in wanted:
        here, there = out / f"{name}-{method}-{count}-0.json", out / f"{name}-{method}-{count}-0.bundle.json"
        if not here.exists() or (kept and not there.exists()):
            continue
        if not there.exists():
            whole = load_dataset(path, image_size="256", allow_duplicates=True)
            dataset = dataclasses.replace(whole, train=tuple(whole.train[i] for i in picked(len(whole.train), count, 0)))
            dataset, _ = with_brightness(dataset)
            options = FitOptions(method, rule=Rule(kind="false_reject_rate", target=RATES[0]), augment=variations(dataset, method)[0])
            with tempfile.TemporaryDirectory(dir=out) as work:
                run = teach(dataset, options, Path(work) / "run")
                build(run, Path(work) / "bundle", None, BuildOptions("int8", band=1.0, budget=1.0, envelope=False), dataset=dataset)
                metrics = evaluate_bundle(ModelBundle.open(Path(work) / "bundle"), dataset).metrics
            found = {"auroc": metrics.image_auroc, "rejected": metrics.false_reject_rate, "missed": metrics.false_accept_rate}
            there.write_text(json.dumps(found))
            console.print(there.stem)
        row = judge(json.loads(here.read_text()))
        at = row["rates"][0]
        ours = {"auroc": row["auroc"]["clean"], "rejected": at["clean"], "missed": at["missed"]}
        pairs.append({"name": f"{name}, {method}, {count}", "here": ours, "there": json.loads(there.read_text())})
    return pairs


def judge(found: dict[str, Any]) -> dict[str, Any]:
    """A detector's AUROCs, and what its threshold does at each stated rate."""
    if "failed" in found:
        return found
    good, bad = (np.array(found[key], dtype=bool) for key in ("good", "bad"))
    scores = {word: np.array(s) for word, s in found["scores"].items()}
    held_out = Scores(*[np.array(found["held_out"])] * 3)
    row = {key: found[key] for key in ("set", "method", "chosen", "count", "seed", "mixed", "planted_named")}
    row |= {"auroc": {word: float(roc_auc_score(bad[good | bad], s[good | bad])) for word, s in scores.items()}, "rates": []}
    for rate in (r for r in RATES if r >= lowest_rate("false_reject_rate", len(held_out))):
        threshold, _ = apply_rule(Rule(kind="false_reject_rate", target=rate), held_out, None, found["apart"], found["named"])
        best = float(np.quantile(scores["clean"][good], 1 - rate))
        miss = [float((scores["clean"][bad] <= t).mean()) for t in (threshold.value, best)]
        rejected = {word: float((s[good] > threshold.value).mean()) for word, s in scores.items()}
        others = np.array(found.get("undrawn", []))
        rejected |= {"undrawn": float((others > threshold.value).mean())} if len(others) else {}
        row["rates"].append(
            {"rate": rate, "bound": threshold.false_reject_upper, "missed": miss[0], "excess": miss[0] - miss[1], **rejected}
        )
    return row


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The figures, as Markdown."""
    whole = [r for r in rows if "failed" not in r and not r["mixed"] and (r["count"] == 0 or r["count"] >= min(COUNTS[:-1]))]
    stated = " and ".join(f"{100 * r:g} %" for r in RATES)
    table = [
        f"INT8 features (float for padim shared), EfficientNet-Lite0, {os.cpu_count()} cores, {len(whole)} detectors at {stated} stated.",
        "",
        "| method | cases | false rejects within the stated bound | as a multiple of the stated rate | the same of undrawn good images |"
        " excess miss: median, 90 %, worst |",
        "|---|---|---|---|---|---|",
    ]
    for method in [*dict.fromkeys(r["method"] for r in whole), "all"]:
        some = [c for r in whole if method in ("all", r["method"]) for c in r["rates"]]
        excess = np.array([c["excess"] for c in some])
        inside = np.mean([c["clean"] <= c["bound"] + 1e-9 for c in some])
        multiple = np.mean([c["clean"] / c["rate"] for c in some])
        own = [c["undrawn"] / c["rate"] for c in some if "undrawn" in c]
        table.append(
            f"| {method} | {len(some)} | {100 * inside:.0f} % | {multiple:.2f} | {f'{np.mean(own):.2f}' if own else '–'} |"
            f" {np.median(excess):.3f}, {np.quantile(excess, 0.9):.3f}, {excess.max():.3f} |"
        )
    table += [
        "",
        "| all good images | " + " | ".join(STRAYS) + " | a tenth of them bad: image AUROC; planted ones named |",
        "|---" * (len(STRAYS) + 2) + "|",
    ]
    for r in (r for r in whole if r["count"] == 0 and r["seed"] == 0):
        strayed = [f"{r['auroc'][w]:.3f} / {np.mean([c[w] / c['rate'] for c in r['rates']]):.1f}" for w in STRAYS]
        m = next((m for m in rows if m["mixed"] and (m["set"], m["method"]) == (r["set"], r["method"]) and "failed" not in m), None)
        mixed = "–" if m is None else f"{m['auroc']['clean']:.3f}; {100 * m['planted_named']:.0f} %"
        name = f"{r['set']}, {r['method']}" + (f" ({r['chosen']})" if r["method"] == "auto" else "")
        table.append(f"| {name} | " + " | ".join(strayed) + f" | {mixed} |")
    table += ["", "Image AUROC / false rejects as a multiple of the stated rate, at the unchanged threshold.", ""]
    few = [r for r in rows if r["method"] == "auto" and "failed" not in r and not r["mixed"]]
    counts = [*FEW, *COUNTS]
    table += [
        "| automatic choice, image AUROC from so many good images | " + " | ".join(str(c or "all") for c in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for name in dict.fromkeys(r["set"] for r in few):
        found = [[r["auroc"]["clean"] for r in few if r["set"] == name and r["count"] == c] for c in counts]
        table.append(f"| {name} | " + " | ".join(f"{np.mean(f):.3f}" if f else "–" for f in found) + " |")
    return "\n".join(table)


def render_pairs(pairs: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    if not pairs:
        return ""
    table = ["", "", "| bundle and device's predictor (computed as above) | image AUROC | false rejects | misses |", "|---|---|---|---|"]
    for pair in pairs:
        cells = [f"{pair['there'][k]:.3f} ({pair['here'][k]:.3f})" for k in ("auroc", "rejected", "missed")]
        table.append(f"| {pair['name']} | {' | '.join(cells)} |")
    return "\n".join(table)


if __name__ == "__main__":
    run_app(app)

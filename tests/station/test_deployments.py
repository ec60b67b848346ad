"""Models change without a stop: what is deployed to a running station, what survives, and what is refused."""

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_runtime.config.files import PlcTrigger, load_station
from edge_runtime.errors import BundleError, ConfigError, DeviceError, GoldenMismatch, SinkError
from edge_runtime.model.bundle import read_manifest, write_manifest
from edge_runtime.model.manifest import Golden
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.records import Decision, Health, Verdict
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.station import launch
from edge_runtime.station.deployments import Deployments, Wish
from edge_runtime.station.products import Product
from tests.station.rig import BUSY_MS
from tests.support.ports import free_ports
from tests.support.waiting import BUSY_S, until

BY = Wish("anna", "the new lamp")


@dataclass
class Running:
    folder: Path
    deployments: Deployments
    health: Callable[[], Health]
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    @property
    def products(self) -> Mapping[str, Product]:
        return self.deployments._running.products

    def decided(self) -> list[Decision]:
        return read_decisions(self.folder / "journal.sqlite", 0, 100_000)

    def judged_by(self, bundle_id: str) -> None:
        """Wait for a decision of a bundle's."""
        until(lambda: any(d.bundle_id == bundle_id for d in self.decided()[-3:]))


@contextlib.contextmanager
def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "", period_ms: float = 20, trigger: PlcTrigger | None = None
) -> Iterator[Running]:
    """The station of `folder` in this process; parts come from a timer, or a PLC."""
    ports = free_ports(2)
    (folder / "station.toml").write_text(
        f'name = "st"\nrecipe = "recipe.toml"\nqueue = 64\n{more}\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        f'[trigger]\nkind = "timer"\nperiod_ms = {period_ms}\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    )
    begun: list[Deployments] = []
    events: list[tuple[str, dict[str, object]]] = []
    real = Deployments.begin
    monkeypatch.setattr(Deployments, "begin", lambda self, station: (begun.append(self), real(self, station)))
    record = Journal.event
    monkeypatch.setattr(Journal, "event", lambda self, kind, **said: (events.append((kind, said)), record(self, kind, **said)))
    config = load_station(folder / "station.toml")
    config = msgspec.structs.replace(config, trigger=trigger or config.trigger)
    with contextlib.ExitStack() as stack:
        station, monitor = launch.open_station(config, stack)
        station.begin()
        monitor.ready()
        thread = threading.Thread(target=station.run)
        thread.start()
        try:
            yield Running(folder, begun[0], monitor.snapshot, events)
        finally:
            station.stop()
            thread.join(BUSY_S)


@pytest.fixture
def other(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    """A sound bundle with another id, whose threshold accepts the bad parts of the folder."""
    return make_bundle(name="other", threshold=150.0)


@pytest.fixture(autouse=True)
def _patient(station_dir: Path) -> None:
    """A busy test machine must not make faults where the deadline is not the point."""
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 10000"))


def id_of(bundle: Path) -> str:
    return read_manifest(bundle)[1]


def altered(bundle: Path, to: Path, **changes: object) -> Path:
    """A sealed copy whose manifest says something else."""
    shutil.copytree(bundle, to)
    manifest, _ = read_manifest(to)
    write_manifest(to, msgspec.structs.replace(manifest, **changes))
    return to


def test_a_deployed_bundle_judges_from_the_next_part_on_and_each_part_has_one_decision(
    station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 1, over several switches: numbers without a gap, no fault, and each part by the model of its time."""
    a, b = id_of(tiny_bundle), id_of(other)
    with running(station_dir, monkeypatch, period_ms=50) as r:
        r.judged_by(a)
        assert "threshold 150, judges from now on" in r.deployments.deploy(other, BY)
        r.judged_by(b)
        health = r.health()
        assert health.bundle_ids == (b,)
        assert "deployed" in health.origins[0] and "by anna: the new lamp" in health.origins[0]
        r.deployments.rollback(BY)
        until(lambda: r.decided()[-1].bundle_id == a)
        assert "rolled back" in r.health().origins[0]
        r.deployments.rollback(BY)
        until(lambda: r.decided()[-1].bundle_id == b)
    decided = r.decided()
    assert [d.seq for d in decided] == list(range(1, len(decided) + 1))
    assert [d.reason for d in decided if d.verdict is Verdict.FAULT] == []
    order = [d.bundle_id for i, d in enumerate(decided) if i == 0 or d.bundle_id != decided[i - 1].bundle_id]
    assert order == [a, b, a, b]
    assert {d.verdict for d in decided if d.bundle_id == b} == {Verdict.ACCEPT}
    assert Verdict.REJECT in {d.verdict for d in decided if d.bundle_id == a}
    assert [(kind, said["who"], said["old"], said["new"]) for kind, said in r.events] == [
        ("deploy", "anna", a, b), ("rollback", "anna", b, a), ("rollback", "anna", a, b),
    ]  # fmt: skip


def test_what_was_deployed_and_tuned_survives_a_restart_and_is_not_assessed(
    station_dir: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the bundle that was deployed is gone from where it came from."""
    b = id_of(other)
    with running(station_dir, monkeypatch) as r:
        r.deployments.deploy(other, BY)
        assert "threshold 120" in r.deployments.tune(120.0, Wish("berta", "too strict"))
        r.judged_by(b)
    shutil.rmtree(other)
    with running(station_dir, monkeypatch) as r:
        r.judged_by(b)
        last = r.decided()[-1]
        assert (last.bundle_id, last.threshold) == (b, 120.0)
        assert "tuned" in r.health().origins[0] and "berta: too strict" in r.health().origins[0]
        assert [kind for kind, _ in r.events] == ["in effect"]
        r.deployments.rollback(BY)
        until(lambda: r.decided()[-1].threshold == 150.0)
        assert r.decided()[-1].bundle_id == b


def test_a_recipe_file_that_was_changed_by_hand_wins_and_says_so(
    station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = id_of(tiny_bundle), id_of(other)
    with running(station_dir, monkeypatch) as r:
        r.deployments.deploy(other, BY)
        r.judged_by(b)
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text() + "threshold = 30.0\n")
    for _ in range(2):  # for good
        with running(station_dir, monkeypatch) as r:
            until(lambda: r.decided()[-1].threshold == 30.0)
            assert r.decided()[-1].bundle_id == a
            assert "changed by hand" in r.health().origins[0]
    with running(station_dir, monkeypatch) as r:
        r.deployments.rollback(BY)
        r.judged_by(b)


def test_a_bundle_that_was_replaced_where_the_recipe_names_it_wins_as_well(
    station_dir: Path, tiny_bundle: Path, other: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = station_dir / "own"
    shutil.copytree(tiny_bundle, own)
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "own"\ndeadline_ms = 10000\n')
    with running(station_dir, monkeypatch) as r:
        r.deployments.deploy(other, BY)
    shutil.rmtree(own)
    shutil.copytree(make_bundle(name="newest"), own)
    with running(station_dir, monkeypatch) as r:
        r.judged_by(id_of(own))


def test_a_recipe_file_is_read_again_while_the_station_runs(station_dir: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = station_dir / "recipe.toml"
    with running(station_dir, monkeypatch) as r:
        assert "nothing was changed" in r.deployments.reload(BY)
        recipe.write_text(recipe.read_text() + "min_defect_px = 4000\n")
        r.deployments.reload(BY)
        until(lambda: any(d.reason.startswith("Only small marks") for d in r.decided()[-10:]))
        recipe.write_text(recipe.read_text().replace("10000", "9000"))
        with pytest.raises(ConfigError, match=r"deadline_ms: expected 10000.* found 9000.*restart"):
            r.deployments.reload(BY)


def test_a_region_that_lies_in_no_frame_is_refused_before_a_frame_as_large_is_made(
    station_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = station_dir / "recipe.toml"
    sound = recipe.read_text()
    made: list[object] = []
    real = OpenvinoPredictor.blank
    with running(station_dir, monkeypatch) as r:
        until(lambda: len(r.decided()) > 3)
        monkeypatch.setattr(OpenvinoPredictor, "blank", lambda self: (made.append(self.preprocessor.roi), real(self))[1])
        for side, error, said in (
            (60_000, ConfigError, "roi: expected a region in a frame of at most 268,435,456 pixels"),
            (16_000, BundleError, r"region of interest \[0, 0, 16000, 16000\] does not fit into a frame of 64x64"),
            (80, BundleError, r"region of interest \[0, 0, 80, 80\] does not fit into a frame of 64x64"),
        ):
            recipe.write_text(f"{sound}\nroi = [0, 0, {side}, {side}]\n")
            with pytest.raises(error, match=said):
                r.deployments.reload(BY)
        before = len(r.decided())
        until(lambda: len(r.decided()) > before + 3)
        assert Verdict.FAULT not in {d.verdict for d in r.decided()}
    assert made == []


def test_what_fails_leaves_the_model_that_judges_and_says_why(
    station_dir: Path, tiny_bundle: Path, other: Path, tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = id_of(tiny_bundle)
    damaged = tmp_path / "damaged"
    shutil.copytree(other, damaged)
    with (damaged / "model.bin").open("r+b") as file:
        file.write(b"\1")
    wrong = altered(
        other, tmp_path / "wrong", golden=[g.__class__(image=g.image, score=g.score * 2, map_peak=g.map_peak) for g in golden(other)]
    )
    small = make_bundle(side=32)
    with running(station_dir, monkeypatch) as r:
        r.judged_by(a)
        for path, error, said in (
            (damaged, BundleError, "model.bin was altered"),
            (wrong, GoldenMismatch, "golden samples differ"),
            (small, BundleError, "cannot judge what this camera shows"),
            (tmp_path / "nowhere", BundleError, "station's user .* found nothing there"),
        ):
            with pytest.raises(error, match=said):
                r.deployments.deploy(path, BY)
        with pytest.raises(ConfigError, match="threshold of at most"):
            r.deployments.tune(1e6, BY)
        with pytest.raises(ConfigError, match="in effect before, found nothing"):
            r.deployments.rollback(BY)
        with pytest.raises(ConfigError, match=r"--recipe: expected a key of \[recipes\] \(known are none\), found '7'"):
            r.deployments.tune(30.0, Wish("anna", "why", recipe="7"))
        with pytest.raises(ConfigError, match="--why: expected one line of printable text"):
            r.deployments.tune(30.0, Wish("anna", " "))
        before = len(r.decided())
        until(lambda: len(r.decided()) > before + 3)
        assert {d.bundle_id for d in r.decided()} == {a}
        assert r.health().origins == ("recipe file",)
        assert r.events == []
    assert not (station_dir / "models" / "in_effect.json").exists()
    assert not list((station_dir / "models").glob(".*"))


def golden(bundle: Path) -> list[Golden]:
    return read_manifest(bundle)[0].golden


def test_only_a_signed_bundle_is_deployed_where_keys_are_trusted(
    station_dir: Path, tiny_bundle: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    (station_dir / "line.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    own = station_dir / "own"
    shutil.copytree(tiny_bundle, own)
    sign(own, key)
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "own"\ndeadline_ms = 10000\n')
    with running(station_dir, monkeypatch, 'trusted_keys = ["line.pub"]') as r:
        with pytest.raises(BundleError, match="expected the signature of line"):
            r.deployments.deploy(other, BY)
        sign(other, Ed25519PrivateKey.generate())
        with pytest.raises(BundleError, match="by another key"):
            r.deployments.deploy(other, BY)
        sign(other, key)
        r.deployments.deploy(other, BY)
        r.judged_by(id_of(other))
    with running(station_dir, monkeypatch, 'trusted_keys = ["line.pub"]') as r:
        r.judged_by(id_of(other))
    (station_dir / "models" / id_of(other) / "manifest.sig").unlink()
    with pytest.raises(BundleError, match=r"expected the signature of line.*without .*in_effect\.json"), running(
        station_dir, monkeypatch, 'trusted_keys = ["line.pub"]'
    ):  # fmt: skip
        pass


def sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    (bundle / "manifest.sig").write_bytes(key.sign((bundle / "manifest.json").read_bytes()))


def test_old_bundles_go_by_count_and_none_that_is_needed(
    station_dir: Path, tiny_bundle: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [make_bundle(name=f"b{i}") for i in range(4)]
    store = station_dir / "models"
    with running(station_dir, monkeypatch, "models.keep = 1") as r:
        r.deployments.deploy(bundles[0], BY, shadow=1)
        for bundle in bundles[1:]:
            r.deployments.deploy(bundle, BY)
        until(lambda: len(list(store.glob("*" * 1 + "?" * 63))) == 3)
    kept = {p.name for p in store.iterdir() if p.is_dir() and len(p.name) == 64}
    assert kept == {id_of(bundles[i]) for i in (0, 2, 3)}  # the shadow, the one before, the one that judges


def test_a_shadow_counts_and_keeps_what_it_judges_otherwise_and_gets_the_vote_when_it_is_promoted(
    station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = id_of(tiny_bundle), id_of(other)
    with running(station_dir, monkeypatch) as r:
        assert "looks on from now on, at one part in 2" in r.deployments.deploy(other, BY, shadow=2)
        until(lambda: (seen := r.health().shadows[0]).accepts >= 2 and seen.judged > seen.accepts)  # under load it skips parts
        shadow = r.health().shadows[0]
        assert (shadow.bundle_id, shadow.every, shadow.rejects) == (b, 2, 0)
        assert f"{shadow.accepts} of {shadow.judged} parts judged otherwise" in shadow.sentence
        assert {d.bundle_id for d in r.decided()} == {a}
        kept = sorted((station_dir / "models" / "shadow").rglob("*.json"))
        known = json.loads(kept[0].read_text())
        assert (known["decision"]["verdict"], known["shadow"]["verdict"], known["shadow"]["bundle_id"]) == ("REJECT", "ACCEPT", b)
        assert kept[0].with_suffix(".png").exists()
    with running(station_dir, monkeypatch) as r:  # it looks on again after a restart, and counts on
        until(lambda: r.health().shadows and r.health().shadows[0].judged > 0)
        assert r.health().shadows[0].judged >= shadow.judged and r.health().shadows[0].accepts >= shadow.accepts
        r.deployments.promote(Wish("anna", "as good, and faster"))
        r.judged_by(b)
        assert r.health().shadows == ()
        assert [kind for kind, _ in r.events] == ["promote", "shadow verdict"]
        assert r.events[1][1]["judged"] > 0
        with pytest.raises(ConfigError, match="expected a shadow, found none"):
            r.deployments.promote(BY)


def test_recipes_and_cameras_are_told_apart(station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other recipe of the same bundle goes on with the model that both shared."""
    (station_dir / "strict.toml").write_text(f'name = "strict"\nbundle = {json.dumps(str(tiny_bundle))}\ndeadline_ms = 10000\n')
    with running(station_dir, monkeypatch, '[recipes]\n7 = "strict.toml"') as r:
        r.deployments.deploy(other, Wish("anna", "why", recipe="7"))
        products = r.products
        assert (products[""].bundle_ids, products["7"].bundle_ids) == ((id_of(tiny_bundle),), (id_of(other),))
        r.deployments.deploy(tiny_bundle, Wish("anna", "why", recipe="7"))
        assert r.products["7"].models == r.products[""].models
        with pytest.raises(ConfigError, match="--camera: expected none, as there is one, found 'top'"):
            r.deployments.deploy(other, Wish("anna", "why", camera="top"))


def test_a_plc_gets_one_result_for_each_part_over_several_switches(
    station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 1, as the PLC sees it: it counts the results, and each part is judged as the model of its time judges it."""
    a, b = id_of(tiny_bundle), id_of(other)
    settings = msgspec.structs.replace(default_trigger("modbus", "127.0.0.1", free_ports(1)[0]), timeout_ms=5000.0)
    with (
        SimulatedPlc(settings, parts_per_minute=1200, count=60, result_timeout_ms=10_000) as plc,
        running(station_dir, monkeypatch, trigger=settings) as r,
    ):
        r.judged_by(a)
        changes = 0
        while not plc.wait_finished(0.01):
            r.deployments.deploy(tiny_bundle if changes % 2 else other, BY)
            changes += 1
        until(lambda: len(r.decided()) == 60)
    decided = r.decided()
    assert changes >= 2 and {d.bundle_id for d in decided} == {a, b}
    assert plc.violations == []
    assert [result.count for result in plc.results.values()] == list(range(1, 61))
    assert [result.verdict for result in plc.results.values()] == [d.verdict for d in decided]
    bad = [i % 6 in (2, 5) for i in range(60)]
    assert [d.verdict is Verdict.REJECT for d in decided] == [is_bad and d.bundle_id == a for is_bad, d in zip(bad, decided, strict=True)]


def test_a_full_disk_changes_nothing_and_is_said(
    station_dir: Path, tiny_bundle: Path, other: Path, small_disk: tuple[Path, Path, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the copy, and when what is in effect would be written down."""
    a, b, disk = id_of(tiny_bundle), id_of(other), small_disk[1]
    store, ballast = disk / "models", disk / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    with running(station_dir, monkeypatch, f'models.path = "{store}"') as r:
        fill()
        with pytest.raises(DeviceError, match=r"takes .* MB of a disk that keeps .* for the journal"):
            r.deployments.deploy(other, BY)
        assert not store.exists() or not list(store.iterdir())
        ballast.unlink()
        r.deployments.deploy(other, BY)
        r.deployments.rollback(BY)  # both are here now
        fill()
        with pytest.raises(SinkError, match="could not be written down: No space left on device; nothing was changed"):
            r.deployments.rollback(BY)
        assert r.health().bundle_ids == (a,)
        ballast.unlink()
        r.deployments.rollback(BY)
        r.judged_by(b)


@pytest.mark.alone
def test_the_longest_gap_between_decisions_over_switches_is_one_deadline(
    station_dir: Path, tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(station_dir, monkeypatch, period_ms=100) as r:
        until(lambda: len(r.decided()) > 3)
        for path in (other, tiny_bundle, other, tiny_bundle):
            r.deployments.deploy(path, BY)
        before = len(r.decided())
        until(lambda: len(r.decided()) > before + 3)
    times = [d.stamps.decided_ns for d in r.decided()]
    assert max(after - before for before, after in itertools.pairwise(times)) / 1e6 <= 500 + BUSY_MS

"""What installed packages add: found by name alone, their settings checked as ours are, and whatever is wrong with one is a sentence."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime import plugins
from edge_runtime.config.files import load_station, plugins_in, sinks_in
from edge_runtime.errors import ConfigError
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.sinks import open_sink
from edge_runtime.sources import open_source
from edge_runtime.triggers import open_trigger
from tests.support.kinds import SOURCES
from tests.support.packages import install

CODE = """
import time
from pathlib import Path
from typing import Annotated
import msgspec, numpy as np
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.records import Frame

class Lamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: int = 1

class MirrorSettings(msgspec.Struct, frozen=True):
    path: Path
    size: Annotated[int, msgspec.Meta(ge=8, le=64)] = 16
    lamp: Lamp = Lamp()

    def __post_init__(self):
        if self.size == 13:
            raise ValueError("size: 13 brings bad luck")
        if self.size == 17:
            {}["nothing"]

class Mirror(Source):
    settings_type = MirrorSettings
    def __init__(self, settings):
        if settings.size == 63:
            raise RuntimeError("no such mirror")
        self.settings = settings
    def grab(self, timeout_s):
        return Frame(1, time.monotonic_ns(), "mirror", np.zeros((4, 4), np.uint8))

class Bell(TriggerLine):
    settings_type = Lamp
    def __init__(self, settings, first_seq):
        self.settings, self.first_seq = settings, first_seq
    def wait(self, timeout_s):
        return None

class Log(Sink):
    settings_type = Lamp
    def __init__(self, settings):
        self.settings = settings
    def put(self, decision, pictures):
        pass
"""
ENTRIES = {"sources": {"mirror": "{m}:Mirror"}, "triggers": {"bell": "{m}:Bell"}, "sinks": {"log": "{m}:Log"}}
TOP = 'name = "a"\nrecipe = "r.toml"\n'
MIRROR = '[source]\nkind = "mirror"\npath = "glass"\n'
TIMER = '[trigger]\nkind = "timer"\n'
Refused = Callable[[str], str]


@pytest.fixture
def lineside_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed module with a source, a trigger and a sink."""
    return install(tmp_path / "site", monkeypatch, "lineside-mirror", ENTRIES, CODE)


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """The message for a station file, less the file's path."""

    def message(text: str) -> str:
        (tmp_path / "s.toml").write_text(text)
        with pytest.raises(ConfigError) as e:
            load_station(tmp_path / "s.toml")
        return str(e.value).removeprefix(f"{tmp_path / 's.toml'}: ")

    return message


def test_each_kind_of_part_is_made_with_its_own_settings(tmp_path: Path, lineside_mirror: str) -> None:
    blocks = '[[sink]]\nkind = "log"\nlevel = 3\n[[sink]]\nkind = "log"\n'
    (tmp_path / "s.toml").write_text(TOP + MIRROR + '[source.lamp]\nlevel = 7\n[trigger]\nkind = "bell"\n' + blocks)
    config = load_station(tmp_path / "s.toml")
    source, line = open_source(config.cameras[0].source), open_trigger(config.trigger, 41)
    sinks = {name: open_sink(settings) for name, settings in sinks_in(config).items()}
    assert isinstance(source, Source) and isinstance(line, TriggerLine) and all(isinstance(sink, Sink) for sink in sinks.values())
    its = source.settings  # type: ignore[attr-defined]
    assert (its.path, its.size, its.lamp.level) == (tmp_path / "glass", 16, 7), "a relative path is relative to the file"
    assert isinstance(its, sys.modules[lineside_mirror].MirrorSettings)
    assert line.first_seq == 41  # type: ignore[attr-defined]
    assert {name: sink.settings.level for name, sink in sinks.items()} == {"sink_log": 3, "sink_log_2": 1}  # type: ignore[attr-defined]
    assert list(map(str, plugins_in(config))) == [
        f'source "mirror" of lineside-mirror 1.2 ({lineside_mirror}:Mirror)',
        f'trigger "bell" of lineside-mirror 1.2 ({lineside_mirror}:Bell)',
        f'sink "log" of lineside-mirror 1.2 ({lineside_mirror}:Log)',
    ]


def test_several_cameras_may_be_plug_ins_beside_others(tmp_path: Path, lineside_mirror: str) -> None:
    blocks = (
        f'[[camera]]\nname = "{name}"\nrecipe = "r.toml"\nsource = {{kind = "{kind}", path = "p"}}\n'
        for name, kind in (("top", "mirror"), ("side", "folder"))
    )
    (tmp_path / "s.toml").write_text('name = "a"\n' + TIMER + "".join(blocks))
    config = load_station(tmp_path / "s.toml")
    assert [type(open_source(camera.source)).__name__ for camera in config.cameras] == ["Mirror", "Folder"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MIRROR + "sise = 9\n" + TIMER, "source.sise: unknown key; did you mean source.size?"),
        (MIRROR + "size = 7\n" + TIMER, "source.size: expected a whole number of at least 8, found 7"),
        (MIRROR + 'size = "9"\n' + TIMER, 'source.size: expected a whole number, found "9"; write 9, without quotes'),
        (MIRROR + "lamp = { levle = 3 }\n" + TIMER, "source.lamp.levle: unknown key; did you mean source.lamp.level?"),
        (MIRROR + "size = 13\n" + TIMER,
            "source.size: 13 brings bad luck, found 13"),
        (MIRROR.replace('path = "glass"\n', "") + TIMER, "source.path: missing"),
        (MIRROR.replace('"glass"', "3") + TIMER, "source.path: expected a path in quotes, found 3"),
        (MIRROR + TIMER + "[[sink]]\nkind = \"log\"\nlevel = 0.5\n", "sink[0].level: expected a whole number, found 0.5"),
        (MIRROR + TIMER + "xyzzy = 3\n", "trigger.xyzzy: unknown key"),
        ("xyzzy = 3\n" + MIRROR + TIMER, "xyzzy: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_plug_in_s_table_is_said_as_in_any_other(lineside_mirror: str, refused: Refused, text: str, message: str) -> None:
    assert refused(TOP + text) == message


def test_a_kind_that_nobody_brings_is_told_what_there_is(lineside_mirror: str, refused: Refused) -> None:
    installed = '"mirror" of lineside-mirror 1.2'
    assert refused(TOP + MIRROR.replace("mirror", "miror") + TIMER) == f'source.kind: expected one of {SOURCES}; {installed}, found "miror"'
    sink = '[[sink]]\nkind = "logg"\n'
    assert refused(TOP + MIRROR + TIMER + sink) == 'sink[0].kind: expected one of "log" of lineside-mirror 1.2, found "logg"'
    assert refused(TOP + MIRROR + TIMER + "[[sink]]\n") == 'sink[0].kind: expected one of "log" of lineside-mirror 1.2, found none'


def test_a_sink_where_no_package_brings_any(refused: Refused) -> None:
    sink = '[[sink]]\nkind = "log"\n'
    none = 'sink[0].kind: expected the kind of an installed package, of which there is none here, found "log"'
    assert refused(TOP + '[source]\nkind = "synthetic"\n' + TIMER + sink) == none


def test_nothing_is_looked_up_or_imported_while_all_kinds_are_our_own(
    tmp_path: Path, lineside_mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(group: str) -> list[plugins.Plugin]:
        raise AssertionError("the list of what is installed was read")

    monkeypatch.setattr(plugins, "offered", read)
    (tmp_path / "s.toml").write_text(TOP + '[source]\nkind = "synthetic"\n' + TIMER + "[archive]\n[preview]\n")
    load_station(tmp_path / "s.toml")
    assert lineside_mirror not in sys.modules


def test_of_a_package_only_what_is_named_is_imported(tmp_path: Path, lineside_mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = install(tmp_path / "other", monkeypatch, "other", {"sources": {"glass": "{m}:Glass"}}, 'raise SystemExit("imported")')
    (tmp_path / "s.toml").write_text(TOP + MIRROR + TIMER)
    load_station(tmp_path / "s.toml")
    assert lineside_mirror in sys.modules and other not in sys.modules


STRUCT = "import msgspec\nfrom edge_runtime.protocols import Source\nclass P(Source):\n    def grab(self, timeout_s): pass\n"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import a_driver_that_is_not_there", "found ModuleNotFoundError: No module named 'a_driver_that_is_not_there'. Install what"),
        ("1 / 0", "can be imported, found ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "can be imported, found SystemExit: 3"),
        ("def P(:", "can be imported, found SyntaxError"),
        ("", "can be imported, found AttributeError"),
        ("P = 3", "expected a class that derives from edge_runtime.protocols.Source, found 3"),
        ("class P: pass", "expected a class that derives from edge_runtime.protocols.Source, found <class"),
        ("from edge_runtime.protocols import Sink\nclass P(Sink): pass", "derives from edge_runtime.protocols.Source, found <class"),
        ("from edge_runtime.protocols import Source\nclass P(Source): pass", "expected a class with a method grab, found none"),
        (STRUCT, "expected settings_type to be a msgspec.Struct, found None"),
        (STRUCT + "    settings_type = dict", "expected settings_type to be a msgspec.Struct, found <class 'dict'>"),
        (STRUCT + "    class settings_type(msgspec.Struct):\n        kind: str", "fit for a table of a file, found ValueError"),
        (STRUCT + "    class settings_type(msgspec.Struct):\n        x: 'Nowhere'", "fit for a table of a file, found NameError"),
        (STRUCT + "    class settings_type(msgspec.Struct):\n        x: slice", ".x: expected a type that a file can hold, found slice"),
        (STRUCT + "    class N(msgspec.Struct): pass\n    settings_type = msgspec.defstruct('S', [('x', list[N])])",
            "S.x: expected N to refuse unknown keys, found forbid_unknown_fields=False"),
    ],
)  # fmt: skip
def test_a_broken_one_is_a_sentence_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, code: str, why: str
) -> None:
    module = install(tmp_path / "site", monkeypatch, "lineside-broken", {"sources": {"broken": "{m}:P"}}, code)
    said = refused(TOP + '[source]\nkind = "broken"\n' + TIMER)
    assert said.startswith(f'source.kind: source "broken" of lineside-broken 1.2 ({module}:P): ')
    assert why in said


def test_an_entry_that_points_to_nothing_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    for target in ("nowhere_at_all:P", "nowhere at all", ""):
        with monkeypatch.context() as here:
            install(tmp_path / f"site {target}", here, "lineside-broken", {"sources": {"broken": target}})
            said = refused(TOP + '[source]\nkind = "broken"\n' + TIMER)
            assert said.startswith('source.kind: source "broken" of lineside-broken 1.2 (') and "can be imported" in said


def test_settings_that_raise_what_they_should_not_and_a_class_that_does_are_sentences(
    tmp_path: Path, lineside_mirror: str, refused: Refused
) -> None:
    assert f"found KeyError: 'nothing' from source \"mirror\" of lineside-mirror 1.2 ({lineside_mirror}:Mirror)" in refused(
        TOP + MIRROR + "size = 17\n" + TIMER
    )
    (tmp_path / "s.toml").write_text(TOP + MIRROR + "size = 63\n" + TIMER)
    with pytest.raises(ConfigError, match=r'^source "mirror" of lineside-mirror 1\.2 \(.*\): RuntimeError: no such mirror$'):
        open_source(load_station(tmp_path / "s.toml").cameras[0].source)


def test_a_kind_that_two_bring_names_both(tmp_path: Path, lineside_mirror: str, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    install(tmp_path / "other", monkeypatch, "a-looking-glass", {"sources": {"mirror": "{m}:Glass"}})
    said = refused(TOP + MIRROR + TIMER)
    assert 'source "mirror" of lineside-mirror 1.2' in said and 'source "mirror" of a-looking-glass 1.2' in said
    assert "uninstall one of them" in said


def test_a_kind_of_our_own_cannot_be_taken_over(
    tmp_path: Path, lineside_mirror: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    install(tmp_path / "other", monkeypatch, "better-folder", {"sources": {"folder": "{m}:Folder"}, "sinks": {"archive": "{m}:A"}})
    said = refused(TOP + MIRROR + TIMER)
    assert 'source "folder" of better-folder 1.2' in said and 'found "folder" of Lineside itself' in said
    (tmp_path / "s.toml").write_text(TOP + '[source]\nkind = "folder"\npath = "p"\n' + TIMER)
    assert type(open_source(load_station(tmp_path / "s.toml").cameras[0].source)).__module__ == "edge_runtime.sources.folder"

"""Station and recipe files: what is wrong in them is said with the key's path, what was expected and what was found."""

import re
import tomllib
from pathlib import Path

import pytest

from edge_runtime.config.files import FolderSourceConfig, LiveSourceConfig, TagConfig, load_recipe, load_station
from edge_runtime.errors import ConfigError
from edge_runtime.plc.modbus import ModbusTriggerConfig
from tests.support.kinds import SOURCES, TRIGGERS

STATION = 'name = "a"\nrecipe = "r.toml"\n'
FOLDER = '[source]\nkind = "folder"\npath = "parts"\n'
TIMER = '[trigger]\nkind = "timer"\n'


def station(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "station.toml"
    file.write_text(text)
    return file


def refused(tmp_path: Path, text: str) -> str:
    """The message, less the file's path, which must open it."""
    file = station(tmp_path, text)
    with pytest.raises(ConfigError) as e:
        load_station(file)
    assert str(e.value).startswith(f"{file}: ")
    return str(e.value).removeprefix(f"{file}: ")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_station(station(tmp_path, STATION + FOLDER + TIMER + '[archive]\npath = "/elsewhere"\n[recipes]\n7 = "g.toml"\n'))
    assert isinstance(config.source, FolderSourceConfig)
    assert config.source.path == tmp_path / "parts"
    assert config.recipe == tmp_path / "r.toml"
    assert config.recipes == {"7": tmp_path / "g.toml"}
    assert config.journal.path == tmp_path / "journal.sqlite"
    assert config.archive is not None
    assert config.archive.path == Path("/elsewhere")


def test_each_kind_brings_its_own_table(tmp_path: Path) -> None:
    text = STATION + '[source]\nkind = "camera"\ndevice = "rtsp://c/1"\n[trigger]\nkind = "modbus"\nport = 1502\n'
    text += (
        '[trigger.inputs]\ntrigger = "coil:0"\npart_id = { address = "holding:4", order = "CDAB" }\n[trigger.outputs]\nreject = "coil:9"\n'
    )
    config = load_station(station(tmp_path, text))
    assert isinstance(config.source, LiveSourceConfig)
    assert isinstance(config.trigger, ModbusTriggerConfig)
    assert config.trigger.port == 1502
    assert config.trigger.inputs.part_id == TagConfig(address="holding:4", order="CDAB")
    assert config.trigger.outputs.reject == "coil:9"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STATION + FOLDER + "lop = true\n" + TIMER, "source.lop: unknown key; did you mean source.loop?"),
        (STATION + FOLDER + TIMER + "[publischer]\n", "publischer: unknown key; did you mean publisher?"),
        (STATION + "period_ms = 5\n" + FOLDER + TIMER, "period_ms: unknown key; did you mean trigger.period_ms?"),
        (STATION + "xyzzy = 5\n" + FOLDER + TIMER, "xyzzy: unknown key"),
        (STATION + FOLDER + '[trigger]\nkind = "modbus"\nslott = 3\ninputs.trigger = "coil:0"\n', "trigger.slott: unknown key"),
        (STATION + FOLDER + '[trigger]\nkind = "modbus"\nhost = "192.168..10"\ninputs.trigger = "coil:0"\n',
            'trigger.host: expected a host such as "192.168.0.10" or "plc-3.line", found "192.168..10"'),
        (STATION + FOLDER + '[trigger]\nkind = "opcua"\nendpoint = "http://10.0.0.1:5840"\ninputs.trigger = "i=1"\n',
            'trigger.endpoint: expected an address such as "opc.tcp://192.168.0.10:4840", found "http://10.0.0.1:5840"'),
        (STATION + FOLDER + '[trigger]\nkind = "timer"\nperiod_ms = 1e300\n',
            "trigger.period_ms: expected a number of at most 1000000000.0, found 1e+300"),
        (STATION + FOLDER + TIMER + '[publisher]\nendpoint = "tcp://*:5570"\nreplay = "tcp://127.0.0.1:5570"\n',
            'publisher.replay: expected a socket of its own, found "tcp://127.0.0.1:5570", which publisher.endpoint ("tcp://*:5570") '
            "takes"),
        (STATION + '[source]\nkind = "folder"\npath = 3\n' + TIMER, "source.path: expected a path in quotes, found 3"),
        (STATION + "queue = 5.5\n" + FOLDER + TIMER, "queue: expected a whole number, found 5.5"),
        (STATION + "device = 4\n" + FOLDER + TIMER, "device: expected text in quotes or a list, found 4"),
        (STATION + 'device = ["CPU", 3]\n' + FOLDER + TIMER, "device[1]: expected text in quotes, found 3"),
        (STATION + "source = 3\n" + TIMER, "source: expected a table, found 3"),
        (STATION + FOLDER + TIMER + "period_ms = -3\n", "trigger.period_ms: expected a number above 0.0, found -3"),
        (STATION + FOLDER + TIMER + "period_ms = nan\n", "trigger.period_ms: expected a finite number, found nan"),
        (STATION + FOLDER + '[trigger]\nkind = "modbus"\nport = 99999\n',
            "trigger.port: expected a whole number of at most 65535, found 99999"),
        (
            STATION + FOLDER + TIMER + '[publisher]\nendpoint = "5560"\n',
            'publisher.endpoint: expected an endpoint such as "tcp://127.0.0.1:5560" (a port is 1 to 65535), found "5560"',
        ),
        (
            STATION + FOLDER + TIMER + '[preview]\nendpoint = "tcp://127.0.0.1:65536"\n',
            'preview.endpoint: expected an endpoint such as "tcp://127.0.0.1:5560" (a port is 1 to 65535), found "tcp://127.0.0.1:65536"',
        ),
        (STATION + FOLDER + TIMER + "[journal]\ndurable = 1\n", "journal.durable: expected true or false, found 1"),
        (
            STATION + '[source]\nkind = "camra"\n' + TIMER,
            f'source.kind: expected one of {SOURCES}, found "camra"',
        ),
        (STATION + FOLDER + "[trigger]\n", f'trigger.kind: missing; one of {TRIGGERS}'),
        (STATION + TIMER, "source: missing"),
        (STATION + '[source]\nkind = "camera"\n' + TIMER, "source.device: missing"),
        (STATION + "device = []\n" + FOLDER + TIMER, 'device: expected at least one device such as "CPU", found an empty list'),
        (STATION + FOLDER + TIMER + '[recipes]\n1 = "a.toml"\n7 = 3\n', "recipes.7: expected a path in quotes, found 3"),
        (STATION + FOLDER + TIMER + '[recipes]\n"" = "a.toml"\n',
            "recipes: expected keys such as 7, found an empty one; what a trigger without a recipe gets is `recipe`"),
        ('name = "a b"\nrecipe = "r"\n' + FOLDER + TIMER,
            "name: expected a name of letters, digits, '.', '_' and '-' (64 at most), found \"a b\""),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key_and_both_sides(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == message


HEAD = 'name = "a"\n'
TOP = '[[camera]]\nname = "top"\nrecipe = "t.toml"\nrecipes = {7 = "t7.toml"}\nsource = {kind = "folder", path = "top"}\n'
SIDE = '[[camera]]\nname = "side"\nrecipe = "s.toml"\nrecipes = {7 = "s7.toml"}\n[camera.source]\nkind = "camera"\ndevice = 1\n'


def test_several_cameras_each_have_their_source_and_recipes(tmp_path: Path) -> None:
    config = load_station(station(tmp_path, HEAD + TIMER + TOP + SIDE))
    assert config.cameras == config.camera
    top, side = config.cameras
    assert (top.name, top.recipe, top.recipes) == ("top", tmp_path / "t.toml", {"7": tmp_path / "t7.toml"})
    assert isinstance(top.source, FolderSourceConfig)
    assert top.source.path == tmp_path / "top"
    assert isinstance(side.source, LiveSourceConfig)
    only = load_station(station(tmp_path, STATION + FOLDER + TIMER)).cameras
    assert [(c.name, c.recipe) for c in only] == [("", tmp_path / "r.toml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STATION + TIMER + TOP + SIDE, "recipe: expected in each [[camera]] block, found at the top of the file as well; remove it there"),
        (HEAD + FOLDER + TIMER + TOP + SIDE,
            "source: expected in each [[camera]] block, found at the top of the file as well; remove it there"),
        (HEAD + TIMER + TOP,
            "camera: expected two [[camera]] blocks or more, found one; the only camera's source and recipe stand at the top"),
        (HEAD + TIMER + TOP + TOP, 'camera[1].name: expected another name than that of camera[0], found "top" again'),
        (HEAD + TIMER + TOP + SIDE.replace("7 =", "8 ="), "camera[1].recipes: expected the keys of camera[0].recipes (7), found 8"),
        (HEAD + TIMER + TOP + SIDE.replace('"side"', '"on the side"'),
            "camera[1].name: expected a name of letters, digits, '.', '_' and '-' (64 at most), found \"on the side\""),
        (HEAD + TIMER + TOP + SIDE.replace("device = 1", "devise = 1"),
            "camera[1].source.devise: unknown key; did you mean camera[1].source.device?"),
        (HEAD + TIMER + TOP + SIDE.replace('"camera"', '"camra"'),
            f'camera[1].source.kind: expected one of {SOURCES}, found "camra"'),
        (HEAD + TIMER + TOP + SIDE.replace('recipe = "s.toml"\n', ""), "camera[1].recipe: missing"),
        (HEAD + TIMER + TOP + SIDE.replace("s7.toml", "").replace('""', "3"), "camera[1].recipes.7: expected a path in quotes, found 3"),
        (HEAD + TIMER, "source: missing"),
        (HEAD + FOLDER + TIMER, "recipe: missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_camera_s_block_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == message


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    assert "is not valid TOML" in (said := refused(tmp_path, STATION + "[source\n"))
    assert "line 3" in said


def test_what_windows_editors_write_is_taken_or_said(tmp_path: Path) -> None:
    whole = STATION + FOLDER + TIMER
    file = tmp_path / "station.toml"
    file.write_text(whole, encoding="utf-8-sig")
    load_station(file)
    file.write_bytes(whole.encode() + "# größer\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_station(file)
    assert "NUL" in refused(tmp_path, whole.replace('recipe = "', 'recipe = "a\\u0000'))
    assert "is not valid TOML" in refused(tmp_path, "x = " + "[" * 5000 + "]" * 5000 + "\n" + whole)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_station(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: expected a station file, could not read it: No such file"):
        load_station(tmp_path / "nowhere.toml")


def test_every_port_and_a_socket_s_path_are_endpoints(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    for endpoint in ("tcp://*:1", "tcp://127.0.0.1:65535", "tcp://[::1]:9999", "ipc:///run/lineside/a"):
        file.write_text(STATION + FOLDER + TIMER + f'[publisher]\nendpoint = "{endpoint}"\n[security]\nplain = true\n')
        assert load_station(file).publisher.endpoint == endpoint
    for endpoint in ("tcp://127.0.0.1:0", "tcp://127.0.0.1:99999", "tcp://127.0.0.1", "udp://127.0.0.1:5560"):
        assert "publisher.endpoint: expected an endpoint" in refused(
            tmp_path, STATION + FOLDER + TIMER + f'[publisher]\nendpoint = "{endpoint}"\n'
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('kind = "pylon"\nroi = [0, 0, 60_000, 60_000]', "source.roi: expected a region in a frame of at most 268,435,456 pixels"),
        ('kind = "pylon"\nroi = [0, 0, 2_000_000, 1]', "source.roi[2]: expected a whole number of at most 1048576, found 2000000"),
        ('kind = "synthetic"\nwidth = 60_000\nheight = 60_000', "source.width: expected at most 268,435,456 pixels in all"),
        ('kind = "synthetic"\nwidth = 1_000_000_000', "source.width: expected a whole number of at most 1048576, found 1000000000"),
        ('kind = "camera"\ndevice = 0\nwidth = 60_000\nheight = 60_000', "source.width: expected at most 268,435,456 pixels in all"),
    ],
)
def test_frames_that_no_camera_has_are_refused_by_key(tmp_path: Path, source: str, message: str) -> None:
    assert refused(tmp_path, STATION + f"[source]\n{source}\n" + TIMER).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("deadline_ms = -1", "deadline_ms: expected a number above 0.0, found -1"),
        ("threshold = inf", "threshold: expected a finite number, found inf"),
        ("threshold = true", "threshold: expected a number, found true"),
        ("roi = [1, 2, 3]", "roi: expected a list of at least 4 entries, found [1, 2, 3]"),
        ("roi = [0, 0, 1_000_000_000, 1_000_000_000]", "roi[2]: expected a whole number of at most 1048576, found 1000000000"),
        (
            "roi = [0, 0, 60_000, 60_000]",
            "roi: expected a region in a frame of at most 268,435,456 pixels, more than any camera has, found [0, 0, 60000, 60000],"
            " which reaches to 60000x60000",
        ),
        (
            "roi = [1_000_000, 1_000_000, 64, 64]",
            "roi: expected a region in a frame of at most 268,435,456 pixels, more than any camera has, found [1000000, 1000000, 64, 64],"
            " which reaches to 1000064x1000064",
        ),
        ("roi = [1, 2, 3, 0]", "roi: expected a width and a height of at least 1, found [1, 2, 3, 0]"),
        ("roi = [1, 2, 3, -4]", "roi[3]: expected a whole number of at least 0, found -4"),
        (
            "golden = 4",
            "golden: no longer a setting: all of a bundle's golden samples are run at every start, for a model that is only partly"
            " proved is not proved. Remove the line",
        ),
        ("treshold = 3.0", "treshold: unknown key; did you mean threshold?"),
    ],
)
def test_a_recipe_is_checked_the_same_way(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f'name = "p"\nbundle = "b"\n{line}\n')
    with pytest.raises(ConfigError) as e:
        load_recipe(file)
    assert str(e.value) == f"{file}: {message}"


def test_an_infinite_threshold_can_never_accept_everything(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    for number in ("inf", "+inf", "nan"):
        file.write_text(f'name = "p"\nbundle = "b"\nthreshold = {number}\n')
        with pytest.raises(ConfigError):
            load_recipe(file)


@pytest.mark.parametrize("example", ["station.toml", "line.toml", "cameras.toml"])
def test_an_example_holds_each_table_once_also_those_that_are_commented_out(example: str) -> None:
    text = (Path(__file__).parents[4] / "deploy" / "examples" / example).read_text()
    whole = tomllib.loads(re.sub(r"^# (\[|\w+ = )", r"\1", text, flags=re.MULTILINE))  # a table that stands there twice is an error
    assert whole["name"]

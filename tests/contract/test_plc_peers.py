"""The ports against servers that others wrote: node-opcua and cpppo, each in a process of its own."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config.files import PlcInputs
from edge_runtime.errors import ConfigError, TagError
from edge_runtime.plc.ethernetip import EthernetipPort, EthernetipTriggerConfig
from edge_runtime.plc.opcua import OpcuaPort
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.tags import Tag
from tests.support.ports import free_port
from tests.support.waiting import listens, until

NO_INPUTS = PlcInputs(trigger="unused")


def tag(name: str, address: str, kind: Any = "bool", writable: bool = False, **more: Any) -> Tag:
    return Tag(name, f"trigger.{'outputs' if writable else 'inputs'}.{name}", address, kind, writable, **more)


class NodeOpcua:
    """node-opcua in its own process: `say(set=…)` is its program's write, `say(get=…)` its memory."""

    def __init__(self, port: int, home: Path) -> None:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("no Node.js: apt-get install nodejs npm; npm install -g node-opcua-server")
        modules = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=True).stdout.strip()
        if not (Path(modules) / "node-opcua-server").exists():
            pytest.skip(f"no node-opcua-server in {modules}: npm install -g node-opcua-server")
        self.settings = OpcuaTriggerConfig(endpoint=f"opc.tcp://127.0.0.1:{port}", inputs=NO_INPUTS)
        nested = f"{modules}:{modules}/node-opcua-server/node_modules"
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).parent / "peers" / "node_opcua.js"), str(port), str(home / "pki")], text=True, cwd=home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"NODE_PATH": nested, "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home)},
        )  # fmt: skip
        self.index = self._answer()["index"]

    def say(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # it also writes warnings there
                return json.loads(line)
        raise AssertionError("node-opcua has ended")

    def tags(self, *without: str) -> list[Tag]:
        ns = f"ns={self.index};s="
        tags = [
            tag("trigger", f"{ns}Trigger"), tag("acknowledge", f"{ns}Acknowledge"), tag("part_id", f"{ns}Part", "uint32"),
            tag("recipe", f"{ns}Name", "text", length=16), tag("encoder", f"{ns}Encoder", "uint32"),
            tag("result_part_id", f"{ns}Id", "uint32", True), tag("result_count", f"{ns}Count", "uint16", True),
            tag("severity", f"{ns}Severity", "uint16", True, scale=100.0), tag("accept", f"{ns}Accept", writable=True),
            tag("result_valid", f"{ns}Valid", writable=True),
        ]  # fmt: skip
        return [t for t in tags if t.name not in without]

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def opcua(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeOpcua]:
    peer = NodeOpcua(free_port(), tmp_path_factory.mktemp("node-opcua"))
    yield peer
    peer.end()


def test_node_opcua_is_read_written_and_subscribed_to(opcua: NodeOpcua) -> None:
    woken = threading.Event()
    port = OpcuaPort(opcua.settings, opcua.tags())
    port.connect(woken.set)
    try:
        assert port.publishing_ms == 50, "what it grants, whatever is asked"
        names = ["trigger", "acknowledge", "part_id", "recipe", "encoder"]
        outputs = ["result_part_id", "result_count", "severity", "accept", "result_valid"]
        assert port.trips(names) == 1 and port.trips(names + outputs) == 2, "its limit is 5 nodes a Read"
        port.write({"result_part_id": 2**32 - 1, "result_count": 300, "severity": 1.25, "accept": True, "result_valid": True})
        held = opcua.say(get=["Id", "Count", "Severity", "Accept", "Valid"])
        assert held == {"Id": 2**31 - 1, "Count": 255, "Severity": 125, "Accept": True, "Valid": True}, "Int32, Byte and Double"
        assert port.read(outputs)["severity"] == 1.25
        opcua.say(set={"Name": "R7", "Part": 17, "Encoder": [0, 4_000_000_000], "Trigger": True})
        assert woken.wait(5)
        assert port.read(names) == {"trigger": True, "acknowledge": False, "part_id": 17, "recipe": "R7", "encoder": 4_000_000_000}
        seen = _until(port, names, lambda s: s["part_id"] == 17)
        assert seen[-1] == port.read(names)
        for part in range(100, 130):  # each pulse is shorter than a publishing interval
            for write in ({"Part": part}, {"Trigger": False}, {"Trigger": True}):
                opcua.say(set=write)
                time.sleep(0.002)  # its timestamps have milliseconds
        seen = _until(port, ["trigger", "part_id"], lambda s: s["part_id"] == 129 and s["trigger"])
        rises = [b["part_id"] for a, b in pairwise(seen) if b["trigger"] and not a["trigger"]]
        assert rises == list(range(100, 130))
    finally:
        port.close()


def _until(port: OpcuaPort, names: list[str], done: Any) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    until(lambda: seen.extend(port.poll(names)) or (seen and done(seen[-1])))
    return seen


def test_node_opcua_says_what_is_not_there_and_what_may_not_be_written(opcua: NodeOpcua) -> None:
    for wrong, message in (
        (tag("accept", f"ns={opcua.index};s=Fixed", writable=True), "read-only"),
        (tag("accept", f"ns={opcua.index};s=Nothing", writable=True), "found none"),
        (tag("fault_code", f"ns={opcua.index};s=Valid", "uint16", True), "expected a number .* found Boolean"),
    ):
        with pytest.raises(TagError, match=rf"^{wrong.key}: .*{message}"):
            OpcuaPort(opcua.settings, [*opcua.tags("accept", "result_valid"), wrong]).connect(lambda: None)


def test_node_opcua_that_trusts_nobody_yet_is_told_as_such(opcua: NodeOpcua, tmp_path: Path) -> None:
    from edge_runtime.sim.opcua_server import self_signed

    certificate, key = self_signed("urn:lineside:station")
    (tmp_path / "c.der").write_bytes(certificate)
    (tmp_path / "k.der").write_bytes(key)
    settings = OpcuaTriggerConfig(
        endpoint=opcua.settings.endpoint, security="Basic256Sha256", certificate=tmp_path / "c.der", private_key=tmp_path / "k.der",
        inputs=NO_INPUTS,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^trigger\.certificate: .*refused .*c\.der"):
        OpcuaPort(settings, opcua.tags()).connect(lambda: None)


def test_node_opcua_that_freezes_is_lost_in_time(opcua: NodeOpcua) -> None:
    woken = threading.Event()
    port = OpcuaPort(opcua.settings, opcua.tags())
    port.connect(woken.set)
    time.sleep(1.0)
    assert port.poll(["trigger"]) == [], "nothing changed, and it is alive"
    woken.clear()
    opcua.process.send_signal(signal.SIGSTOP)
    assert woken.wait(3), "the line is woken to see that it is lost"
    with pytest.raises(PlcLost):
        port.poll(["trigger"])
    began = time.monotonic()
    port.close()
    assert time.monotonic() - began < 3
    with pytest.raises(PlcLost, match="500 ms"):
        port.connect(woken.set)
    opcua.process.send_signal(signal.SIGCONT)
    port.connect(woken.set)
    assert port.read(["part_id"]) == {"part_id": opcua.say(get=["Part"])["Part"]}
    port.close()


@pytest.fixture
def cpppo(tmp_path: Path) -> Iterator[EthernetipTriggerConfig]:
    if importlib.util.find_spec("cpppo") is None:
        pytest.skip("no cpppo: pip install 'lineside[dev]'")
    port = free_port()
    tags = ["Trig=BOOL", "Part=UDINT", "Flags=DINT", "Sev=INT", "Speed=REAL", "Words=INT[8]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cpppo.server.enip", "-a", f"127.0.0.1:{port}", "--no-udp", *tags], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port))
        yield EthernetipTriggerConfig(host="127.0.0.1", port=port, timeout_ms=2000, inputs=NO_INPUTS)
    finally:
        process.kill()
        process.wait()


def test_cpppo_is_read_and_written(cpppo: EthernetipTriggerConfig) -> None:
    tags = [
        tag("trigger", "Trig", writable=True), tag("part_id", "Part", "uint32", True), tag("enable", "Flags.3"),
        tag("severity", "Sev", "uint16", True, scale=100.0), tag("speed", "Speed", "float32", True), tag("word", "Words[5]", "int16", True),
    ]  # fmt: skip
    port = EthernetipPort(cpppo, tags)
    port.connect(lambda: None)
    other = EthernetipPort(cpppo, [tag("word", "Words[4]", "int16"), tag("flags", "Flags", "int32", True), tag("part", "part", "int32")])
    other.connect(lambda: None)
    try:
        values = {"trigger": True, "part_id": 2**32 - 1, "severity": 400.0, "speed": -1.5, "word": -7}
        port.write(values)
        other.write({"flags": 8})
        assert port.read([*values, "enable"]) == values | {"severity": 327.67, "enable": True}
        assert other.read(["word"]) == {"word": 0}
        port.write({"word": 5})
        assert port.read(["word"]) == {"word": 5}
    finally:
        port.close()
        other.close()
    with pytest.raises(TagError, match=r'^trigger\.inputs\.enable: expected the tag "Nothing"'):
        EthernetipPort(cpppo, [tags[0], tag("enable", "Nothing")]).connect(lambda: None)

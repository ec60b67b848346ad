"""The memory of a PLC that takes lines of JSON (edge_runtime.plc.jsonline): what simulated PLCs and tests write to and read from."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.plc.jsonline import JsonlineTriggerConfig
from edge_runtime.plc.tags import Tag, Value, from_plc, to_plc
from edge_runtime.sim.loop_server import LoopServer


class JsonlineServer(LoopServer):
    """A TagServer."""

    def __init__(self, settings: JsonlineTriggerConfig, tags: Sequence[Tag]) -> None:
        super().__init__(f"{settings.host}:{settings.port}", tags)
        self._settings = settings
        self._memory: dict[str, Any] = {t.address: "" if t.type == "text" else False if t.type == "bool" else 0 for t in tags}
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def _get(self, names: Sequence[str]) -> dict[str, Value]:
        return {n: from_plc(self._tags[n], self._memory[self._tags[n].address]) for n in names}

    async def _set(self, values: Mapping[str, Value]) -> None:
        self._memory |= {self._tags[n].address: to_plc(self._tags[n], v) for n, v in values.items()}

    async def _build(self) -> None:
        pass

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._talk, self._settings.host, self._settings.port)

    async def _hang_up(self) -> None:
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while line := await reader.readline():
                self._requests += 1
                writer.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        finally:
            self._clients.discard(writer)
            writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = request.get("get") or request["set"]
        if unknown := [name for name in asked if name not in self._memory]:
            return {"unknown": unknown[0]}
        if "set" not in request:
            return {name: self._memory[name] for name in asked}
        self._memory |= asked
        return {}

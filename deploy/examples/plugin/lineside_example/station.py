"""A test card in the place of a camera, and a CSV file with a line a decision."""

import csv
import time
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from edge_runtime.errors import SinkError
from edge_runtime.protocols import Sink, Source
from edge_runtime.records import Frame


class CardSettings(msgspec.Struct, frozen=True):
    side: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 256
    spot_every: Annotated[int, msgspec.Meta(ge=0)] = 0  # each so manieth picture has a bright spot; 0: none


class Card(Source):
    settings_type = CardSettings
    live = False  # a picture waits for whoever asks

    def __init__(self, settings):
        self.settings, self.seq = settings, 0

    def grab(self, timeout_s):
        captured_ns, side, every = time.monotonic_ns(), self.settings.side, self.settings.spot_every
        self.seq += 1
        image = np.full((side, side), 80, np.uint8)
        if every and self.seq % every == 0:
            image[side // 4 : side // 2, side // 2 : 3 * side // 4] = 200
        image.flags.writeable = False
        return Frame(self.seq, captured_ns, f"card {self.seq}", image)


class CsvSettings(msgspec.Struct, frozen=True):
    path: Path


class Csv(Sink):
    settings_type = CsvSettings

    def __init__(self, settings):
        self.path = settings.path

    def __enter__(self):
        try:
            self.file = self.path.open("a", newline="")
        except OSError as e:
            raise SinkError(f"{self.path}: expected a file to write to, found: {e.strerror}") from e
        return self

    def __exit__(self, *exc):
        self.file.close()

    def put(self, decision, pictures):
        csv.writer(self.file).writerow([decision.wall_time, decision.seq, decision.part_id, decision.verdict.value])
        self.file.flush()

"""`python -m tests.bench_cameras`: from the PLC's edge to the frame of a software-triggered camera, on Basler's emulation. Not a test.

The same trigger is timed with pypylon alone, in turn with the station's own path, so that what the watchdog and the hand-overs cost stands
beside what the SDK takes. The exposure is part of both.
"""

import json
import os
import sys
import time
from typing import Annotated

import numpy as np
import typer

from edge_runtime.capture.capture import Capture
from edge_runtime.config.files import PylonSourceConfig
from edge_runtime.console import run_app
from edge_runtime.records import Trigger
from edge_runtime.sources import open_source
from edge_runtime.sources.driver import configure
from edge_runtime.sources.pylon import PylonDriver

app = typer.Typer(add_completion=False)


@app.command()
def bench(
    shots: Annotated[int, typer.Option(help="Triggers of each arm.")] = 500,
    exposure_ms: Annotated[float, typer.Option()] = 4.0,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height.")] = (1024, 1024),
    gap_ms: Annotated[float, typer.Option(help="Between two parts.")] = 20.0,
) -> None:
    """Edge to frame in ms: the station's capture, and pypylon alone."""
    os.environ["PYLON_CAMEMU"] = "2"  # the SDK's own switch; read when it is loaded
    sys.setswitchinterval(0.0005)  # as `lineside run` does
    settings = [
        PylonSourceConfig(serial=f"0815-000{i}", trigger="software", exposure_us=exposure_ms * 1e3, pixel_format="Mono8", roi=[0, 0, *size])
        for i in range(2)
    ]
    alone = PylonDriver(settings[1])
    alone.open()
    configure(alone, settings[1])
    alone.start()
    ours: list[float] = []
    theirs: list[float] = []
    with open_source(settings[0]) as source:
        capture = Capture(source, 1.0)
        for seq in range(1, shots + 21):
            time.sleep(gap_ms / 1e3)
            trigger = Trigger(seq, time.monotonic_ns(), "")
            capture.order(trigger)
            capture.collect(trigger, trigger.fired_ns + 1_000_000_000)
            ours.append((time.monotonic_ns() - trigger.fired_ns) / 1e6)
            time.sleep(gap_ms / 1e3)
            began = time.monotonic_ns()
            alone.fire(1.0)
            alone.fetch(1.0)
            theirs.append((time.monotonic_ns() - began) / 1e6)
        capture.close()
    alone.close()
    result: dict[str, float] = {"shots": shots, "exposure_ms": exposure_ms}
    for name, times in (("edge_to_frame", ours), ("pypylon_alone", theirs)):
        result[f"{name}_ms_median"], result[f"{name}_ms_p99"] = (round(float(np.quantile(times[20:], q)), 2) for q in (0.5, 0.99))
    print(json.dumps(result))


if __name__ == "__main__":
    run_app(app)

"""What encryption costs a decision on its way: publisher to subscriber, through the door, with keys and without, in turn in one run.

    python -m tests.bench_keys --count 2000

The subscriber is a process of its own. Times are from before `put` to after the message is there, on the clock that both have.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from edge_runtime.config.files import PublisherConfig
from edge_runtime.credentials import Role
from edge_runtime.security.access import Access
from edge_runtime.security.keys import Keyring, new_pair, write_client
from edge_runtime.sinks.publisher import Publisher
from tests.support.decisions import decision_with
from tests.support.ports import free_ports

LISTENS = """
import sys, time
from pathlib import Path
import zmq
from edge_runtime.credentials import read_key_file
with zmq.Context() as context:
    subs = []
    for endpoint, key in (sys.argv[1:3], sys.argv[3:5]):
        sub = context.socket(zmq.SUB)
        if key:
            read_key_file(Path(key)).apply(sub)
        sub.subscribe(b"decision")
        sub.connect(endpoint)
        subs.append(sub)
    for i in range(int(sys.argv[5]) * 2):
        subs[i % 2].recv_multipart()
        print(time.monotonic_ns(), flush=True)
"""

app = typer.Typer(add_completion=False)


def measure(count: int = 2000, pause_s: float = 0.002) -> dict[str, float]:
    """Milliseconds from `put` to the subscriber, median and 99th percentile, and the median of the paired differences."""
    with tempfile.TemporaryDirectory() as folder:
        ring = Keyring(Path(folder) / "keys")
        public, secret = new_pair()
        write_client(Path(folder) / "me.key", ring.add("me", [Role.OBSERVE], public), secret, ring.make_server())
        endpoints = [f"tcp://127.0.0.1:{port}" for port in free_ports(2)]
        plain, keyed = (PublisherConfig(endpoint=endpoint, replay=None) for endpoint in endpoints)
        with (
            Publisher(plain, "s", None) as one,
            Publisher(keyed, "s", None, Access(ring.folder, everywhere=True)) as other,
            subprocess.Popen(
                [sys.executable, "-c", LISTENS, endpoints[0], "", endpoints[1], f"{folder}/me.key", str(count + 50)],
                stdout=subprocess.PIPE,
            ) as listener,
        ):
            assert listener.stdout is not None
            time.sleep(3)  # both are connected
            took: list[list[float]] = [[], []]
            for i in range(count + 50):
                for publisher, its in ((one, took[0]), (other, took[1])):
                    began = time.monotonic_ns()
                    publisher.put(decision_with(seq=i + 1))
                    its.append((int(listener.stdout.readline()) - began) / 1e6)
                    time.sleep(pause_s)
    without, with_keys = (np.array(its[50:]) for its in took)
    return {
        "plain_ms_median": float(np.median(without)), "plain_ms_p99": float(np.quantile(without, 0.99)),
        "curve_ms_median": float(np.median(with_keys)), "curve_ms_p99": float(np.quantile(with_keys, 0.99)),
        "curve_over_plain_ms": float(np.median(with_keys - without)),
    }  # fmt: skip


@app.command()
def main(count: Annotated[int, typer.Option(help="Decisions of each arm.")] = 2000) -> None:
    """Measure, and print the figures as JSON."""
    print(json.dumps(measure(count)))


if __name__ == "__main__":
    app()

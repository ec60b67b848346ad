"""A subscriber that may be killed at any moment: what it was handed is in its file, and it goes on after the last of it."""

import json
import os
import sys
from pathlib import Path

from edge_runtime.client import DecisionClient, Gap
from edge_runtime.credentials import read_key_file


def handed(path: Path) -> list[dict[str, object]]:
    """What stands in the file, but for a line that a kill tore."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    endpoint, replay, path, key = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    before = handed(path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(file, sum(len(json.dumps(item)) + 1 for item in before))
    os.lseek(file, 0, os.SEEK_END)
    last = max((int(str(item.get("seq", item.get("last_seq")))) for item in before), default=0)
    with DecisionClient(endpoint, replay, after_seq=last, key=read_key_file(key)) as decisions:
        for item in decisions:
            if isinstance(item, Gap):
                line: dict[str, object] = {"first_seq": item.first_seq, "last_seq": item.last_seq, "reason": item.reason}
            else:
                line = {"seq": item.seq, "part_id": item.part_id, "verdict": item.verdict.value}
            os.write(file, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()

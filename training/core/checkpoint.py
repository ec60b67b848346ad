"""The state of unfinished learning in one file: weights, the best so far, optimizer, random generator, and whose it is.

A safetensors file with JSON notes: nothing in it can run. It is replaced at once, so a reader sees the old one or the new one.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edge_runtime.errors import DataError
from edge_runtime.files import put_file


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of unfinished learning lies, and what it must belong to."""

    path: Path
    identity: Mapping[str, Any]
    """Method, parameters, seed, data and so on: what must be the same for it to go on. JSON values."""
    resume: bool = False
    source: Path | None = None
    """Go on from this file instead, which stays as it is."""
    every_s: float = 30.0
    part: str = ""
    """Name of this part of what is learnt in several."""


@dataclass(slots=True)
class State:
    """How far learning has come."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The best so far."""


def save_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all. The library's own `save_file` is for its owner alone and leaves parts behind.

    Raises OSError.
    """
    apart = {k: v.contiguous().clone() for k, v in tensors.items()}  # shared or strided ones are refused
    put_file(path, save(apart, metadata=None if notes is None else dict(notes)))


def _identity(checkpoint: Checkpoint) -> str:
    text = json.dumps({**checkpoint.identity, "part": checkpoint.part}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_state(checkpoint: Checkpoint, module: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator, state: State) -> None:
    """Write the checkpoint, all or nothing. Raises DataError."""
    tensors = {f"module.{k}": v.detach().contiguous() for k, v in module.state_dict().items()}
    tensors |= {f"best.{k}": v.contiguous() for k, v in state.weights.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().contiguous()
            else:
                plain.setdefault(str(index), {})[key] = value
    notes = {
        "identity": _identity(checkpoint),
        "said": json.dumps(dict(checkpoint.identity), sort_keys=True),
        "part": checkpoint.part,
        "optimizer": json.dumps(plain),
        "rng": json.dumps(rng.bit_generator.state),
        "state": json.dumps([state.step, state.seconds, state.best, state.best_step, state.stale]),
    }
    try:
        save_tensors(tensors, checkpoint.path, notes)
    except OSError as e:
        raise DataError(f"checkpoint {checkpoint.path}: cannot be written ({e})") from e


def load_state(checkpoint: Checkpoint, module: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator, state: State) -> None:
    """Bring everything to where the checkpoint was. Raises DataError for one that cannot be read or is of something else."""
    path = checkpoint.source or checkpoint.path
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as e:
        raise DataError(f"checkpoint {path}: cannot be read ({e}); leave out --resume to begin anew") from e
    if notes.get("identity") != _identity(checkpoint):
        raise DataError(f"checkpoint {path}: {_difference(checkpoint, notes)}; leave out --resume to begin anew")
    try:
        module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
        state.weights = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
        values: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in json.loads(notes["optimizer"]).items()}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                values.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
        rng.bit_generator.state = json.loads(notes["rng"])
        state.step, state.seconds, state.best, state.best_step, state.stale = json.loads(notes["state"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as e:  # the same identity, but other tensors or notes
        raise DataError(f"checkpoint {path}: was written by another version of Lineside; leave out --resume to begin anew") from e


def _difference(checkpoint: Checkpoint, notes: Mapping[str, str]) -> str:
    """What of a foreign checkpoint is foreign, in words."""
    try:
        said = json.loads(notes["said"])
    except (KeyError, ValueError):
        return "was not written by this version of Lineside"
    wanted = json.loads(json.dumps(dict(checkpoint.identity)))  # as it would have been written
    for key in (*wanted, *sorted(set(said) - set(wanted))):  # in the writer's order: the method comes first
        mine, its = wanted.get(key), said.get(key)
        if isinstance(mine, dict) and isinstance(its, dict):  # of a whole table, only the entry that differs
            inner = next((k for k in sorted(set(mine) | set(its)) if mine.get(k) != its.get(k)), None)
            key, mine, its = f"{key} {inner}", mine.get(inner), its.get(inner)
        if mine != its:
            return f"expected a fit with {key} {mine!r}, found one with {its!r}"
    return f"belongs to another part of the fit ({notes.get('part') or 'none'})"

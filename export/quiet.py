"""Runs third-party converters without their chatter: stdout, logs, known deprecations, and reports to their makers."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

_NO_TELEMETRY = {"NNCF_CI": "1", "CI": "1"}
"""The only switches that OpenVINO's and NNCF's telemetry look at. A factory's network sees no traffic that its owner did not ask for."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep stdout (where `--json` goes) clean and silence what we know and cannot change; everything else still shows."""
    before = {key: os.environ.get(key) for key in _NO_TELEMETRY}
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.onnx", "torch.utils.cpp_extension")]
    levels = [log.level for log in loggers]
    os.environ.update(_NO_TELEMETRY)
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # torch announces the end of its TorchScript exporter; the new one would need one more package for the same file.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|nncf|openvino)\b.*")
            warnings.filterwarnings("ignore", message=r"(?s).*legacy TorchScript-based ONNX export.*", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|nncf|openvino)\b.*")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

"""Runs third-party converters without their chatter: stdout, logs and known deprecations."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep stdout (where `--json` goes) clean and silence what we know and cannot change; everything else still shows."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.onnx", "torch.utils.cpp_extension")]
    levels = [log.level for log in loggers]
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

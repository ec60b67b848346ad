"""Every error that Lineside raises on purpose, and the exit code that each branch ends a process with.

    LinesideError
    ├── ConfigError        78  a station or recipe file, or a command's argument, says something impossible
    ├── BundleError        65  a bundle is incomplete, altered, of another schema, or its golden samples disagree
    │   └── GoldenMismatch 65  the model computes something else on this device than where it was built
    ├── DataError          66  training or test images are missing, unreadable or do not fit together
    ├── DeviceError        69  the inference device named in the station file is not there or cannot run the model
    ├── SourceError        74  a camera, a video or an image folder cannot be opened or stopped delivering
    │   ├── SourceExhausted 74 a folder or video that does not loop has no more images; the station ends cleanly
    │   └── LostFrame      74  one picture of a camera lost packets or changed its format: never judged
    ├── TriggerError       76  a trigger line (PLC, socket) cannot be opened or broke its protocol
    │   └── TagError       76  the PLC has no such tag, or one of another type or access
    ├── SinkError          73  a receiver of decisions cannot be opened: port in use, folder not writable
    ├── WireError          84  a message from a station cannot be understood, or there is no station at all
    │   └── SchemaError    84  it is of another version of Lineside
    ├── Refused            77  a station does not let this key in, or does not do what was asked (it may name another branch's code)
    ├── DisplayError       85  the operator's window has no screen to open on, or no station gave it anything to draw
    ├── CalibrationError   82  the images cannot support the threshold that was asked for
    ├── ExportError        80  a model could not be converted, quantized, compiled or run
    │   ├── ParityError    81  it could, but its verdicts differ from the detector's
    │   └── NotAccepted    86  it could, but it misses or rejects more than was asked for (--accept)
    └── MissingExtra       83  an optional package is needed; the message holds the command that installs it

0 is success, 1 a check that found something, 2 a usage error, 70 a bug in Lineside (an exception
that is none of the above: the part in flight is published as FAULT first), 71 a machine without memory, file
descriptors, threads or room on its disk for what was asked, whichever of these branches tells of it, 130 Ctrl-C, 143 SIGTERM (and 129
SIGHUP), as a shell reports a process that such a signal ended.

A message says what was expected, what was found, where, and what to do. FrameError and HandoffFull never end
a process: the loop turns them into a FAULT decision.

Why: deploy/decisions/0003.
"""

import sys

__all__ = [
    "EXIT_BUG",
    "EXIT_BUSY",
    "EXIT_EXHAUSTED",
    "EXIT_FINDINGS",
    "EXIT_OK",
    "EXIT_USAGE",
    "BundleError",
    "CalibrationError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DisplayError",
    "ExportError",
    "FrameError",
    "GoldenMismatch",
    "HandoffFull",
    "LinesideError",
    "LostFrame",
    "MissingExtra",
    "NotAccepted",
    "ParityError",
    "Refused",
    "SchemaError",
    "SinkError",
    "SourceError",
    "SourceExhausted",
    "TagError",
    "TriggerError",
    "WireError",
    "printable",
]

EXIT_OK = 0
"""Exit code: success."""
EXIT_FINDINGS = 1
"""Exit code: a check found something."""
EXIT_USAGE = 2
"""Exit code: the command line cannot be understood."""
EXIT_BUG = 70
"""Exit code: a bug in Lineside."""
EXIT_EXHAUSTED = 71
"""Exit code: the machine is out of memory, file descriptors, threads or room on its disk."""
EXIT_BUSY = 75
"""Exit code: a station still does what others asked of it; ask again."""


class LinesideError(Exception):
    """An error that a user can act on; printed as one message, never as a traceback."""

    exit_code: int = EXIT_BUG


class ConfigError(LinesideError):
    """A station or recipe file, or an argument, says something impossible."""

    exit_code = 78


class BundleError(LinesideError):
    """A bundle is incomplete, altered, or of another schema."""

    exit_code = 65


class GoldenMismatch(BundleError):
    """The model computes something else on this device than where it was built."""


class DataError(LinesideError):
    """Images are missing, unreadable, or do not fit together."""

    exit_code = 66


class DeviceError(LinesideError):
    """The named inference device is not there or cannot run the model."""

    exit_code = 69


class SourceError(LinesideError):
    """A camera, video or folder cannot be opened, or stopped delivering."""

    exit_code = 74


class SourceExhausted(SourceError):
    """A folder or video that does not loop has no more images."""


class LostFrame(SourceError):
    """The camera took a picture that cannot be judged: packets are missing, or it is of another format than those before."""

    def __init__(self, why: str, seq: int, captured_ns: int) -> None:
        super().__init__(why)
        self.seq = seq
        self.captured_ns = captured_ns


class TriggerError(LinesideError):
    """A trigger line cannot be opened or broke its protocol."""

    exit_code = 76


class TagError(TriggerError):
    """A tag of the station file is not what the PLC has. The message begins with the tag's key."""


class SinkError(LinesideError):
    """A receiver of decisions cannot be opened."""

    exit_code = 73


class WireError(LinesideError):
    """A message from a station cannot be understood."""

    exit_code = 84


class SchemaError(WireError):
    """A message of another schema (`edge_runtime.wire.SCHEMA`): station and listener are of different versions."""


class Refused(LinesideError):
    """A station does not let somebody in, or refuses what he asked for."""

    exit_code = 77

    def __init__(self, sentence: str, code: int = 77) -> None:
        """`code`: the exit code of the station's own error, where it told one."""
        super().__init__(sentence)
        self.exit_code = code


class DisplayError(LinesideError):
    """The operator's window has no screen to open on, or nothing to draw."""

    exit_code = 85


class CalibrationError(LinesideError):
    """The images cannot support the threshold that was asked for."""

    exit_code = 82


class ExportError(LinesideError):
    """A model could not be converted, quantized, compiled or run."""

    exit_code = 80


class ParityError(ExportError):
    """The exported model's verdicts differ from the detector's."""

    exit_code = 81


class NotAccepted(ExportError):
    """The exported model misses or rejects more than was asked for; built all the same where that is asked for by name."""

    exit_code = 86


class MissingExtra(LinesideError):
    """An optional package is needed for what was asked."""

    exit_code = 83

    def __init__(self, what: str, extra: str, install: str | None = None) -> None:
        """`install`: the command, where it is not pip with an extra."""
        pip = f"{sys.executable} -m pip" if sys.prefix != sys.base_prefix else "pip"  # not the system's: it refuses, or installs elsewhere
        command = install or f"{pip} install 'lineside[{extra}]'"
        super().__init__(f"{what} needs packages that are not installed. Install them with: {command}")


class FrameError(LinesideError):
    """One frame cannot be judged (wrong size, type or channel count); that part becomes a FAULT."""

    exit_code = 66


class HandoffFull(LinesideError):
    """A bounded lane between two threads is full; what did not fit becomes a FAULT."""


def printable(text: str) -> str:
    """Without what moves a terminal's cursor or colours it; a part's name may hold anything."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)

"""How the three commands end: an error of Lineside's own is one message on stderr and its exit code; a traceback is for --debug only."""

import atexit
import codecs
import contextlib
import errno
import inspect
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, get_args, get_origin

import typer

from edge_runtime.errors import EXIT_BUG, EXIT_EXHAUSTED, EXIT_FINDINGS, EXIT_USAGE, ConfigError, DeviceError, LinesideError, printable

_NAME = "lineside"
_LIKE = {
    "×": "x", "·": "*", "•": "*", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "±": "+-",
    "°": " deg",
    "µ": "u", "μ": "u", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "æ": "ae",
    "Æ": "AE", "²": "2", "³": "3", "½": "1/2", "€": "EUR", "✓": "ok", "✗": "x", "█": "#", "─": "-", "━": "-", "│": "|", "\u00a0": " ",
}  # fmt: skip

EXIT_INTERRUPTED = 130
"""As a shell reports a process that SIGINT ended."""
_KEPT = "; what was finished is kept, what was not is taken away"
_SHOWS = frozenset({"bench", "check", "metrics", "overlay", "plc", "sim", "status", "tail", "verify"})
"""Verbs that show and make nothing: there is nothing to keep."""
_DECIMAL_COMMA = re.compile(r"(?:[A-Za-z_.]+=(?:[^=]*,)?(?:[A-Za-z_.]+=)?)?(?P<number>[+-]?\d+,\d+)(?:%|,[A-Za-z_.]+=.*)?")
_COMMA = re.compile(r"\d+,\d+")
_PAIRS = frozenset({"--image-size", "--tiles", "--tile-size"})
"""Options of two whole numbers: 256,256 is no decimal comma there."""
_SHORT = re.compile(r"\d+ requested and \d+ written")
"""All that NumPy says of a file that did not take all of an array."""
_UNUSABLE_NAMES = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
_LEAVE_S = 1.0
"""How long what registered itself for the interpreter's end may take, where threads are left."""
_END_S = 10.0
"""How long a child that is to end may take to end its own children."""


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came: what is open is closed, and what was begun is ended, on the way out."""

    def __init__(self, number: int) -> None:
        self.number = number


_ENDING = (signal.SIGTERM, signal.SIGHUP)
_EXHAUSTED = {
    errno.EMFILE: "file descriptors (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "file descriptors (fs.file-max)",
    errno.ENOMEM: "memory",
    errno.ENOSPC: "room on the disk",
    errno.EDQUOT: "room on the disk",
}


def leave(code: str | int | None) -> NoReturn:
    """End the process with what `sys.exit` was given.

    Where threads are left, at once: one that waits in a library of C++ (a model that is late, a camera that hangs) would be unwound by
    the interpreter's end as soon as it comes back, which that library answers with `terminate called without an active exception`.
    """
    if threading.active_count() == 1:
        sys.exit(code)
    last = threading.Timer(_LEAVE_S, os._exit, (EXIT_FINDINGS if isinstance(code, str) else code or 0,))
    last.daemon = True
    last.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, or none
            stream.flush()
    os._exit(EXIT_FINDINGS if isinstance(code, str) else code or 0)


def _kept(arguments: Sequence[str]) -> str:
    """What becomes of the verb's work, where it makes anything."""
    return "" if next((a for a in arguments if not a.startswith("-")), "") in _SHOWS else _KEPT


def run_app(app: typer.Typer, argv: Sequence[str] | None = None, name: str | None = None) -> NoReturn:
    """Run a command line and end the process.

    `--debug` anywhere among the arguments prints the traceback of whatever ends the command. Usage errors end with 2, a reader that
    closed our pipe (`| head`) with 1, without a word. `argv`: without the program's name; None takes the process's own.
    `name`: what the usage line calls the program; None is its own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    make_printable()
    debug = "--debug" in arguments
    app.pretty_exceptions_enable = False  # typer would otherwise draw a traceback for users
    main_thread = threading.current_thread() is threading.main_thread()
    # A signal that whoever started us has set to be ignored, as nohup does, stays so.
    taken = [n for n in _ENDING if signal.getsignal(n) is not signal.SIG_IGN] if main_thread else []
    before = {number: signal.signal(number, _terminate) for number in taken}
    terminated = 0
    try:
        if (empty := empty_path(app, arguments)) is not None:
            _say(f"error: {empty} is empty: expected a path, found nothing; is a variable of the shell not set?")
            sys.exit(EXIT_USAGE)
        refuse_decimal_commas(arguments)
        app(args=[a for a in arguments if a != "--debug"], prog_name=name)
    except LinesideError as e:
        if debug:
            raise
        _say(f"error: {e}")
        sys.exit(EXIT_EXHAUSTED if _for_want(e) else e.exit_code)
    except KeyboardInterrupt:
        _say(f"interrupted{_kept(arguments)}")
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as e:
        if e.code == EXIT_INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            _say(f"interrupted{_kept(arguments)}")
        raise
    except _Terminated as e:
        terminated = e.number
        _say(f"ended by {signal.Signals(terminated).name}{_kept(arguments)}")
    except Exception as e:
        if isinstance(e, BrokenPipeError) and _is_unread():  # typer lets some through: what it says of a wrong option
            _mute()
            sys.exit(EXIT_FINDINGS)
        if debug:
            raise
        if isinstance(e, ImportError) and "cannot open shared object file" in str(e):
            library = str(e).partition(":")[0]
            _say(f"error: OpenCV needs {library}, which this machine lacks. Run: sudo apt-get install libgl1 libglib2.0-0")
            sys.exit(DeviceError.exit_code)
        if isinstance(e, OSError) and e.errno in _UNUSABLE_NAMES:
            _say(f"error: {e.filename}: cannot be looked at: {e.strerror}")
            sys.exit(ConfigError.exit_code)
        if isinstance(e, FileNotFoundError) and e.filename is None and not _has_folder():
            _say("error: the folder that this was started in is gone; change to another")
            sys.exit(ConfigError.exit_code)
        if want := lacking(e):
            _say(f"error: this machine has no more {want} for it: {str(e).strip() or type(e).__name__}")
            sys.exit(EXIT_EXHAUSTED)
        first = (str(e).strip().splitlines() or ["no message"])[0]
        _say(f"internal error: {type(e).__name__}: {first}. This is a bug in Lineside; run again with --debug for its traceback")
        sys.exit(EXIT_BUG)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _terminate:
                signal.signal(number, handler)
    if terminated:  # only here is all let go that the exception still held
        signal.signal(terminated, signal.SIG_DFL)
        os.kill(os.getpid(), terminated)  # for a supervisor, an end by this signal is no failure
        sys.exit(128 + terminated)  # a container's first process is not ended by its own signal
    sys.exit(0)


def refuse_decimal_commas(arguments: Sequence[str]) -> None:
    """Raise ConfigError for an option whose number is written with a comma (0,01), and say how it is written here.

    Lists of numbers have other lengths (a region has four), or name each (shift=8,rotate=3).
    """
    for before, word in zip(("", *arguments), arguments, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if word == "--":
            return
        if option in _PAIRS and _COMMA.fullmatch(value):
            raise ConfigError(f"{option}: expected two numbers with an x between them, found {value}; write {value.replace(',', 'x')}")
        # The words of --accept are read as a whole, commas and all (training/judging/asked.py).
        found = _DECIMAL_COMMA.fullmatch(value) if equals and option.startswith("-") and option != "--accept" else None
        if found is not None:
            whole = value.replace(found["number"], found["number"].replace(",", "."))
            raise ConfigError(f"{option}: expected a number with a point, found {value} with a decimal comma; write {whole}")


def run_child(command: Sequence[str], capture: bool = True) -> tuple[int, bytes]:
    """(exit code, stdout where captured) of a command; an exception meanwhile, such as SIGTERM's, ends it and what it has begun itself."""
    with subprocess.Popen(command, stdout=subprocess.PIPE if capture else None) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return process.returncode, said or b""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # a second one must not break off what the first began to put in order
    raise _Terminated(number)


def _for_want(e: BaseException) -> bool:
    """Whether it was raised because the machine has run out of something, whatever branch of errors tells of it."""
    cause = e.__cause__
    return cause is not None and (lacking(cause) is not None or _for_want(cause))


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def lacking(e: BaseException) -> str | None:
    """What the machine, or a limit set to this process, has run out of; None for any other exception."""
    if isinstance(e, MemoryError):
        return "memory"
    if isinstance(e, OSError) and e.errno is None and _SHORT.search(str(e)):
        return "room on the disk"
    if isinstance(e, RuntimeError) and "can't start new thread" in str(e):
        return "threads or memory (ulimit -u, TasksMax=)"
    if isinstance(e, ImportError) and ("failed to map segment" in str(e) or "cannot allocate memory" in str(e).lower()):
        return "memory (ulimit -v, MemoryMax=)"
    return _EXHAUSTED.get(getattr(e, "errno", None) or 0)  # OSError and ZMQError alike


def _say(message: str) -> None:
    """A message may quote what stood in a file: nothing in it moves the terminal's cursor."""
    message = "\n".join(printable(line) for line in message.split("\n"))
    if sys.stderr is not None:  # else `print` would take stdout, into which a file may be written
        with contextlib.suppress(OSError):  # nobody listens; the exit code still tells
            print(message, file=sys.stderr, flush=True)


def _is_unread() -> bool:
    """Whether stdout or stderr is a pipe that its reader has closed."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _mute() -> None:
    """Have the interpreter's end write nothing into a pipe that nobody reads."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)


def make_printable() -> None:
    """Let stdout and stderr replace what they cannot encode, whatever the locale or PYTHONIOENCODING says."""
    codecs.register_error(_NAME, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def as_ascii(text: str) -> str:
    """The nearest that ASCII has: accents go, signs are spelt, all else is a question mark."""
    out = []
    for c in text:
        base = unicodedata.normalize("NFKD", _LIKE.get(c, c)).encode("ascii", "ignore").decode()
        out.append(base or "?")
    return "".join(out)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return as_ascii(found), error.end


def empty_path(app: typer.Typer, arguments: Sequence[str]) -> str | None:
    """What a command line calls the first of its paths that is empty ("DATA", "--out"); None where none is."""
    words = list(arguments)
    if all(w.strip() and not w.endswith("=") for w in words):
        return None
    callback = _callback(app, words)
    if callback is None:
        return None
    parameters = list(inspect.signature(callback, eval_str=True).parameters.values())
    places = [p for p in parameters if _is_place(p)]
    options = {name: p for p in parameters if p not in places for name in _names(p)}
    position = 0
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            place = places[min(position, len(places) - 1)] if places else None
            position += 1
            if place is not None and not word.strip() and _is_path(place):
                return next((m.metavar for m in _marks(place) if m.metavar), None) or place.name.upper()
        elif (option := options.get(name)) is not None and not _holds(option, bool):
            value = value if equals else words.pop(0) if words else "missing"
            if not value.strip() and _is_path(option):
                return name
    return None


def _callback(app: typer.Typer, words: list[str]) -> Callable[..., Any] | None:
    """The verb's function; its words are taken off."""
    commands = [c for c in app.registered_commands if c.callback is not None]
    if len(commands) == 1 and not app.registered_groups and app.registered_callback is None:
        return commands[0].callback
    verb = words.pop(0) if words else ""
    for group in app.registered_groups:
        if group.name == verb and group.typer_instance is not None:
            return _callback(group.typer_instance, words)
    return next((c.callback for c in commands if verb == (c.name or getattr(c.callback, "__name__", "").replace("_", "-"))), None)


def _is_place(parameter: inspect.Parameter) -> bool:
    """Whether its words have no name on the command line, as typer reads a function."""
    marks = _marks(parameter)
    return any(isinstance(m, typer.models.ArgumentInfo) for m in marks) or (not marks and parameter.default is inspect.Parameter.empty)


def _marks(parameter: inspect.Parameter) -> list[Any]:
    marks = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
    return [m for m in marks if isinstance(m, typer.models.ParameterInfo)]


def _names(parameter: inspect.Parameter) -> list[str]:
    # In Annotated, typer takes the first name for a default until it builds the command.
    declared = [n for m in _marks(parameter) for n in (m.default, *(m.param_decls or ())) if isinstance(n, str) and n.startswith("-")]
    return [part for n in declared for part in n.split("/")] or [f"--{parameter.name.replace('_', '-')}"]


def _is_path(parameter: inspect.Parameter) -> bool:
    return _holds(parameter, Path)


def _holds(parameter: inspect.Parameter, kind: type) -> bool:
    def within(annotation: Any) -> bool:
        return annotation is kind or any(within(a) for a in get_args(annotation))

    return within(get_args(parameter.annotation)[0] if get_origin(parameter.annotation) is Annotated else parameter.annotation)

"""Output that any terminal can show: what its encoding lacks is written in letters that it has, never as a traceback."""

import codecs
import io
import sys
import unicodedata

_NAME = "lineside"
_LIKE = {
    "×": "x", "·": "*", "•": "*", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "±": "+-",
    "°": " deg",
    "µ": "u", "μ": "u", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "æ": "ae",
    "Æ": "AE", "²": "2", "³": "3", "½": "1/2", "€": "EUR", "✓": "ok", "✗": "x", "█": "#", "─": "-", "━": "-", "│": "|", "\u00a0": " ",
}  # fmt: skip


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

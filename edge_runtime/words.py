"""What people write down for the journal: who they are, and why they did something."""

from edge_runtime.errors import ConfigError, printable

MOST_WORDS = 500
"""Characters of a reason, or of a name, in the journal."""


def one_line(what: str, text: str) -> str:
    """Who somebody is, or why he does something, as it stands in the journal. Raises ConfigError for what nobody could read there later.

    >>> one_line("--why", " the new lamp ")
    'the new lamp'
    >>> one_line("--why", " ")
    Traceback (most recent call last):
    ...
    edge_runtime.errors.ConfigError: --why: expected one line of printable text for whoever reads the journal later, found nothing
    """
    wanted = f"{what}: expected one line of printable text for whoever reads the journal later, found"
    if not text.strip():
        raise ConfigError(f"{wanted} nothing")
    if not text.isprintable():
        wrong = next(c for c in text if not c.isprintable())
        raise ConfigError(f"{wanted} {wrong!a} in {printable(text[:60])!r}")
    if len(text) > MOST_WORDS:
        raise ConfigError(f"{wanted} {len(text):,} characters; at most {MOST_WORDS} are kept")
    return text.strip()

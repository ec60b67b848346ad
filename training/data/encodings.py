"""JSON and XML in the encodings that tools write them in: with a byte order mark, in UTF-16, in what an XML's first line names."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec

NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What readers raise where a file holds other values, or other kinds of values, than its format has."""
_NAMED = re.compile(rb"^\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.\-]+)[\"']")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}
"""Chinese tools name the narrower one and write the wider."""


def decode_json(raw: bytes) -> Any:
    """What a JSON file holds. Raises ValueError, with what is wrong for people."""
    try:
        return msgspec.json.decode(raw.decode(json.detect_encoding(raw)))
    except UnicodeDecodeError as e:
        raise ValueError(f"expected UTF-8, found a byte {e.object[e.start]:#04x} at {e.start}") from e
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e


def parse_xml(raw: bytes) -> ET.Element:
    """The root of an XML file. Raises ValueError, with what is wrong for people."""
    if b"<!ENTITY" in raw:
        raise ValueError("it defines entities")
    try:
        try:
            return ET.fromstring(raw)
        except (ValueError, LookupError):  # expat knows few encodings, Python most
            named = _NAMED.match(raw)
            encoding = named[1].decode().lower() if named else "utf-8"
            return ET.fromstring(raw.decode(_WIDER.get(encoding, encoding)))
    except UnicodeDecodeError as e:
        raise ValueError(f"expected {e.encoding}, found a byte {e.object[e.start]:#04x} at {e.start}") from e
    except (ET.ParseError, LookupError) as e:
        raise ValueError(str(e)) from e


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 where its first bytes say so. Raises OSError, and ValueError for bytes that are neither."""
    raw = path.read_bytes()
    return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def why(error: BaseException) -> str:
    """What was not understood, for people."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing" if error.args else "something is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    text = str(error)
    if isinstance(error, ValueError) and text:
        return text
    return "found a value of another kind than its format has: " + text.replace("'NoneType'", "nothing")

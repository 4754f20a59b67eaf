"""What a log line looks like: one per record, as logfmt or as JSON.

Knows Python's logging and the two forms. Does not know what is logged.

A message of ours is a sentence followed by pairs, in its template: ``tail connected merchants=%d``.
The sentence becomes the field ``message``, and each pair a field of its own, taken from template
and arguments, so that no argument can add a pair or end a line. A message of another library stays
whole.

https://docs.python.org/3/library/logging.html#logrecord-attributes
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

Form = Literal["logfmt", "json"]
Value = str | int | float

_OURS = "sse_push"
_SPECIFIER = re.compile(
    r"(?P<key> [a-z_][a-z0-9_]*=)?%(?P<flags>[-#0 +]*\d*(?:\.\d+)?)(?P<type>[a-zA-Z%])"
)
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII without space, quote, equals sign and backslash."""


def configure_logging(level: str, form: Form = "logfmt") -> None:
    """Log to standard error, a line each; called in each worker, which starts from nothing."""
    root = logging.getLogger()
    ours = [each for each in root.handlers if isinstance(each.formatter, LineFormatter)]
    if not ours:
        ours = [logging.StreamHandler(sys.stderr)]
        root.addHandler(ours[0])
    ours[0].setFormatter(LineFormatter(form))
    root.setLevel(level.upper())
    logging.getLogger("httpx").setLevel("WARNING")


class LineFormatter(logging.Formatter):
    """A record as one line of named fields; a traceback is one of them."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._encode = _ENCODE[form]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._encode(fields(record))


def fields(record: logging.LogRecord) -> dict[str, Value]:
    """Return what a record says: time, level, logger, message, its pairs, its traceback."""
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    message, pairs = _message(record)
    found: dict[str, Value] = {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": message,
    }
    for key, value in pairs.items():
        found[f"{key}_" if key in found else key] = value
    if record.exc_info and record.exc_info[0] is not None:
        found["traceback"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        found["stack"] = record.stack_info
    return found


def _message(record: logging.LogRecord) -> tuple[str, dict[str, Value]]:
    is_ours = record.name.partition(".")[0] == _OURS
    try:
        if is_ours and isinstance(record.args, tuple) and record.args:
            return _split(str(record.msg), record.args)
        return record.getMessage(), {}
    except (TypeError, ValueError, IndexError, KeyError):
        # A template that its arguments do not fit is a fault of ours, and no reason to say nothing.
        return str(record.msg), {"arguments": repr(record.args)}


def _split(template: str, arguments: tuple[object, ...]) -> tuple[str, dict[str, Value]]:
    """Return a template's sentence, and its pairs."""
    rest = list(arguments)
    pairs: dict[str, Value] = {}

    def fill(match: re.Match[str]) -> str:
        kind = match["type"]
        if kind == "%":
            return f"{match['key'] or ''}%"
        argument = rest.pop(0)
        if match["key"] is None:
            return f"%{match['flags']}{kind}" % argument
        if kind == "r" and isinstance(argument, str):
            kind = "s"  # the form decides how a text is quoted
        text = f"%{match['flags']}{kind}" % argument
        pairs[match["key"][1:-1]] = _number(text) if kind in "dfg" else text
        return ""

    sentence = _SPECIFIER.sub(fill, template)
    if rest:
        raise TypeError("not all arguments have a place in the template")
    return sentence, pairs


def _number(text: str) -> Value:
    number = float(text)
    if not math.isfinite(number):
        return text  # which JSON has no number for
    return int(number) if number.is_integer() and "." not in text else number


def _to_logfmt(named: Mapping[str, Value]) -> str:
    """Return ``key=value key="a value"``, quoted as in JSON where it is more than a plain word."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in named.items())


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    # Not printable: line ends of every kind, escape sequences, marks that turn a line around.
    return character if character.isprintable() else json.dumps(character)[1:-1]


_ENCODE: dict[Form, Callable[[Mapping[str, Value]], str]] = {
    "logfmt": _to_logfmt,
    "json": json.dumps,
}

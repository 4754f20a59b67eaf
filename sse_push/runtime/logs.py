"""The form of a log line: one line per record, as logfmt or as JSON.

Knows Python's logging and the two forms. Does not know what is logged.

The template of a message of this package is a sentence followed by pairs, as in
``tail connected merchants=%d``. The sentence becomes the field ``message``, and each pair becomes a
field of its own. Pairs are read from the template before the arguments are filled in, so that no
argument can add a pair or end a line. A message of another library becomes ``message`` as a whole.

https://docs.python.org/3/library/logging.html#logrecord-attributes
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import Any, Literal, cast

from sse_push.runtime.line_writer import LineWriter
from sse_push.runtime.log_pace import LogPace

logger = logging.getLogger(__name__)

Form = Literal["logfmt", "json"]
Value = str | int | float

_OURS = "sse_push"
_FLUSH_LIMIT_S = 1.0
_SPECIFIER = re.compile(
    r"(?P<key> [a-z_][a-z0-9_]*=)?%(?P<flags>[-#0 +]*\d*(?:\.\d+)?)(?P<type>[a-zA-Z%])"
)
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII without space, quote, equals sign and backslash."""


def configure_logging(level: str, form: Form = "logfmt") -> None:
    """Log to standard error, a line per record; each worker calls this for itself."""
    root = logging.getLogger()
    ours = [each for each in root.handlers if isinstance(each, LineHandler)]
    if not ours:
        # Closed (``2>&-``), its number may be that of another file soon.
        fd = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
        ours = [LineHandler(LineWriter(fd))]
        root.addHandler(ours[0])
    ours[0].setFormatter(LineFormatter(form))
    root.setLevel(level.upper())
    logging.getLogger("httpx2").setLevel("WARNING")
    for name in _ERRORS_OF_REQUESTS:
        logging.getLogger(name).addFilter(_paced)


class Paced(logging.Filter):
    """Lets errors of one kind through once a minute, so that no client can flood the log.

    The kind is the place in the code where the error was raised. The first line of a kind has the
    traceback, each later one says how many there were.
    """

    def __init__(self, pace: LogPace) -> None:
        super().__init__()
        self._pace = pace
        self._seen: set[object] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; shorten the record of a kind that was logged."""
        if record.levelno < logging.ERROR:
            return True
        kind = (record.name, *_place(record))
        count = self._pace.count(kind)
        if count and kind in self._seen:
            record.msg, record.args = f"{record.getMessage().strip()} count={count}", None
            record.exc_info = None
        self._seen.add(kind)
        return count > 0


def _place(record: logging.LogRecord) -> tuple[object, ...]:
    error = record.exc_info[1] if record.exc_info else None
    if error is None or error.__traceback__ is None:
        return record.pathname, record.lineno
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return type(error), frame.f_code.co_filename, line


_ERRORS_OF_REQUESTS = ("uvicorn.error", "asyncio")
"""The loggers of what fails for one request, or one connection, in code that is not ours."""

_paced = Paced(LogPace())


class LineHandler(QueueHandler):
    """Hands lines to a writer, so that nobody waits for the reader of the log.

    What finds no room is dropped, and a later line says how much.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__(cast("Any", writer))
        self._writer = writer

    def prepare(self, record: logging.LogRecord) -> bytes:
        """Return the line of a record; called by ``emit``, which reports what fails."""
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def enqueue(self, record: Any) -> None:
        """Have a line written, as ``prepare`` has returned it."""
        if dropped := self._writer.take_dropped():
            logger.warning("log lines dropped count=%d", dropped)  # comes back here, once
        self._writer.put(record)

    def flush(self) -> None:
        """Wait until all is written, but no longer than ``_FLUSH_LIMIT_S``; called at exit."""
        self._writer.flush(_FLUSH_LIMIT_S)


class LineFormatter(logging.Formatter):
    """Formats a record as one line of named fields; a traceback is one of the fields."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._encode = _ENCODE[form]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._encode(fields(record))


def fields(record: logging.LogRecord) -> dict[str, Value]:
    """Return the fields of a record: time, level, logger, message, pairs, traceback, stack."""
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
        # The arguments do not fit the template: a bug of ours, and still worth a line.
        return str(record.msg), {"arguments": repr(record.args)}


def _split(template: str, arguments: tuple[object, ...]) -> tuple[str, dict[str, Value]]:
    """Return the sentence and the pairs of a template, with their arguments."""
    rest = list(arguments)
    pairs: dict[str, Value] = {}

    def fill(match: re.Match[str]) -> str:
        kind = match["type"]
        if kind == "%":
            return f"{match['key'] or ''}%"
        argument = rest.pop(0)
        if match["key"] is None:
            return f"%{match['flags']}{kind}" % (argument,)  # which may be a tuple
        if kind == "r" and isinstance(argument, str):
            kind = "s"  # logfmt and JSON quote the text themselves
        text = f"%{match['flags']}{kind}" % (argument,)
        pairs[match["key"][1:-1]] = _number(text) if kind in "dfg" else text
        return ""

    sentence = _SPECIFIER.sub(fill, template)
    if rest:
        raise TypeError("not all arguments have a place in the template")
    return sentence, pairs


def _number(text: str) -> Value:
    number = float(text)
    if not math.isfinite(number):
        return text  # JSON has no number for it
    return int(number) if number.is_integer() and "." not in text else number


def _to_logfmt(named: Mapping[str, Value]) -> str:
    """Return ``key=value key="a value"``; a value that is no plain word is quoted as in JSON."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in named.items())


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{printable(escaped)}"'


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey; other characters are as in JSON.

    Those are line ends of every kind, escape sequences, and marks of text direction.
    """
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


_ENCODE: dict[Form, Callable[[Mapping[str, Value]], str]] = {
    "logfmt": _to_logfmt,
    "json": json.dumps,
}

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Generator
from typing import cast

import pytest

from sse_push.notification import EntryId
from sse_push.runtime.line_writer import LineWriter
from sse_push.runtime.log_pace import INTERVAL_S, LogPace
from sse_push.runtime.logs import Form, LineFormatter, LineHandler, Paced, configure_logging
from tests.harness.clock import ManualClock
from tests.harness.service import assert_no_errors

PACED = ("uvicorn.error", "asyncio")
FORMS: tuple[Form, ...] = ("logfmt", "json")

HOSTILE = [
    "two\nlines",
    "two\r\nlines",
    'a"quote',
    'x" level=error message="forged',
    "a\\",
    "a=b",
    " ",
    "",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "\x00\x07\x7f",
    "\u2028\u2029\x85\x0b\x0c",
    "\u202etxt.exe",
    "\ud800",
    "%s %d %(name)s",
    '", "level": "error", "x": "',
    "取消",
    "plain",
]

PAIR = re.compile(r'([a-z_][a-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s"=\\]+))(?: |$)')


def record(
    template: str, *arguments: object, name: str = "sse_push.hub", **more: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, template, arguments, None)
    made.created = 1795464000.1239
    for key, value in more.items():
        setattr(made, key, value)
    return made


def formatted(form: Form, made: logging.LogRecord) -> str:
    return LineFormatter(form).format(made)


def parsed(form: Form, line: str) -> dict[str, object]:
    """Read a line back with a parser of the test's own; text outside a field is a failure."""
    if form == "json":
        return cast("dict[str, object]", json.loads(line))
    found: dict[str, object] = {}
    position = 0
    while position < len(line):
        match = PAIR.match(line, position)
        assert match is not None, f"expected a pair, got {line[position:]!r}"
        assert match[1] not in found, "a key twice"
        found[match[1]] = match[3] if match[2] is None else json.loads(f'"{match[2]}"')
        position = match.end()
    return found


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def bare_logging() -> Generator[None]:
    """Reset logging to its state in a new process."""
    loggers = [logging.getLogger(), logging.getLogger("httpx2"), *map(logging.getLogger, PACED)]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    loggers[0].handlers.clear()
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
        logger.filters.clear()


# -- the two forms


def test_a_record_as_logfmt() -> None:
    made = record("tail interrupted, reconnecting cause=%s after=%s", "Connection refused", "7-1")

    assert formatted("logfmt", made) == (
        "time=2026-11-23T20:00:00.123Z level=warning logger=sse_push.hub "
        'message="tail interrupted, reconnecting" cause="Connection refused" after=7-1'
    )


def test_a_record_as_json() -> None:
    made = record("draining connections=%d took_s=%.1f cause=%s", 7, 2.0, "a b")

    assert formatted("json", made) == (
        '{"time": "2026-11-23T20:00:00.123Z", "level": "warning", "logger": "sse_push.hub", '
        '"message": "draining", "connections": 7, "took_s": 2.0, "cause": "a b"}'
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", HOSTILE)
def test_an_argument_cannot_end_a_line_or_add_a_field(form: Form, text: str) -> None:
    made = record("%s went wrong cause=%s merchant_id=%r", text, text, text)

    line = formatted(form, made)

    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert parsed(form, line) == {
        "time": "2026-11-23T20:00:00.123Z",
        "level": "warning",
        "logger": "sse_push.hub",
        "message": f"{text} went wrong",
        "cause": text,
        "merchant_id": text,
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_message_of_another_library_stays_whole(form: Form) -> None:
    made = record("started process=%d\nagain", 7, name="uvicorn.error")

    assert parsed(form, formatted(form, made))["message"] == "started process=7\nagain"
    assert "process" not in parsed(form, formatted(form, made))


@pytest.mark.parametrize("form", FORMS)
def test_a_traceback_is_one_field_of_the_line(form: Form) -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        fail('a "bad"\nvalue')
    raised = (caught.type, caught.value, caught.tb)
    made = record("tail died", exc_info=raised, stack_info="Stack:\n  here")

    line = formatted(form, made)
    found = parsed(form, line)

    assert len(line.splitlines()) == 1
    assert str(found["traceback"]).startswith("Traceback (most recent call last):\n  File ")
    assert str(found["traceback"]).endswith('ValueError: a "bad"\nvalue')
    assert found["stack"] == "Stack:\n  here"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        ("lost cause=%s", ()),
        ("lost cause=%d", ("seven",)),
        ("lost cause=%s", ("a", "b")),
        ("lost cause=%s because=%s", ("a",)),
        ("lost %q", ("a",)),
    ],
)
def test_a_template_that_does_not_fit_its_arguments_is_still_logged(
    form: Form, template: str, arguments: tuple[object, ...]
) -> None:
    found = parsed(form, formatted(form, record(template, *arguments)))

    assert found["message"] == template
    assert found.get("arguments", "()") == repr(arguments)


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_cannot_replace_a_field_of_every_line(form: Form) -> None:
    found = parsed(form, formatted(form, record("lost level=%s message=%s", "error", "forged")))

    assert (found["level"], found["message"]) == ("warning", "lost")
    assert (found["level_"], found["message_"]) == ("error", "forged")


@pytest.mark.parametrize("form", FORMS)
def test_an_argument_that_is_a_tuple_is_one_argument(form: Form) -> None:
    made = record("revoked %s id=%s", EntryId(1, 2), EntryId(3, 4))

    found = parsed(form, formatted(form, made))

    assert (found["message"], found["id"]) == ("revoked 1-2", "3-4")


def test_percent_signs_and_mappings_are_formatted_as_usual() -> None:
    assert parsed("json", formatted("json", record("100 %% of=%%x a=%d", 1))) == {
        **parsed("json", formatted("json", record("-"))),
        "message": "100 % of=%x",
        "a": 1,
    }
    mapping = record("lost %(what)s")
    mapping.args = {"what": "it"}
    assert parsed("json", formatted("json", mapping))["message"] == "lost it"


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_json_lacks_is_text(number: float) -> None:
    line = formatted("json", record("age_s=%.1f a_s=%.1f", number, number))

    assert json.loads(line, parse_constant=pytest.fail)["a_s"] == str(number)


# -- configuration


def flush() -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()


@pytest.mark.usefixtures("bare_logging")
def test_a_process_logs_a_line_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("sse_push.hub").info("not severe enough")
    logging.getLogger("sse_push.hub").warning("tail interrupted after=%s", "7-1")
    flush()

    written = capfd.readouterr()
    assert written.out == ""
    assert re.fullmatch(
        r"time=[-0-9]{10}T[:.0-9]{12}Z level=warning logger=sse_push\.hub "
        r'message="tail interrupted" after=7-1\n',
        written.err,
    )


@pytest.mark.usefixtures("bare_logging")
def test_level_and_form_may_be_set_again(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    configure_logging("debug", "json")
    logging.getLogger("sse_push.hub").debug("a connection")
    logging.getLogger("httpx2").info("a request, with its query")
    flush()

    lines = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["a connection"]


class Full(LineWriter):
    """A writer that has no room for a while."""

    def __init__(self) -> None:
        self.has_room = True
        self.written: list[bytes] = []
        self.dropped = 0

    def put(self, line: bytes) -> bool:
        if self.has_room:
            self.written.append(line)
        else:
            self.dropped += 1
        return self.has_room

    def take_dropped(self) -> int:
        dropped, self.dropped = (self.dropped, 0) if self.has_room else (0, self.dropped)
        return dropped


@pytest.mark.usefixtures("bare_logging")
def test_lines_that_found_no_room_are_counted_before_the_next_line() -> None:
    writer = Full()
    handler = LineHandler(writer)
    handler.setFormatter(LineFormatter("json"))
    logging.getLogger().addHandler(handler)

    for number, has_room in enumerate([True, False, False, True, True]):
        writer.has_room = has_room
        logging.getLogger("sse_push.hub").warning("line number=%d", number)

    found = [json.loads(line) for line in writer.written]
    assert [(each["message"], each.get("number", each.get("count"))) for each in found] == [
        ("line", 0),
        ("log lines dropped", 2),
        ("line", 3),
        ("line", 4),
    ]


# -- the alarm of the tests: errors in a log


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", [logging.ERROR, logging.CRITICAL])
def test_an_error_in_a_log_is_seen_in_either_form(form: Form, level: int) -> None:
    made = record("lost")
    assert_no_errors(formatted(form, made))
    made.levelno, made.levelname = level, logging.getLevelName(level)

    with pytest.raises(AssertionError, match="lost"):
        assert_no_errors(formatted(form, made))


def test_a_traceback_that_no_logger_wrote_is_seen_too() -> None:
    with pytest.raises(AssertionError):
        assert_no_errors("Traceback (most recent call last):\n")


# -- errors that a client may cause again and again


def failed(error: Exception | None, line: int = 1) -> logging.LogRecord:
    """Return what uvicorn logs of an application that raises."""
    template = "Exception in ASGI application\n"
    made = record(template, name="uvicorn.error", lineno=line, levelno=logging.ERROR)
    made.exc_info = None if error is None else (type(error), error, error.__traceback__)
    return made


def raised(by: Callable[[str], object] = fail) -> Exception:
    with pytest.raises(ValueError, match="x") as found:
        by("x")
    return found.value


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def paced(clock: ManualClock) -> Paced:
    return Paced(LogPace(clock.time))


def test_an_error_of_one_place_has_a_traceback_once_and_then_a_count_each_minute(
    clock: ManualClock, paced: Paced
) -> None:
    first = failed(raised())
    is_logged = [paced.filter(first), *(paced.filter(failed(raised())) for _ in range(3))]
    clock.advance(INTERVAL_S)
    later = failed(raised())

    assert is_logged == [True, False, False, False]
    assert first.exc_info is not None
    assert paced.filter(later)
    assert later.exc_info is None
    assert later.getMessage() == "Exception in ASGI application count=4"


def test_an_error_of_another_place_is_another_kind(paced: Paced) -> None:
    kinds = [raised(), raised(int), None]

    assert [paced.filter(failed(kind)) for kind in kinds] == [True] * 3
    assert paced.filter(failed(None, line=2))
    assert [paced.filter(failed(kind)) for kind in kinds] == [False] * 3


def test_what_is_no_error_is_always_logged(paced: Paced) -> None:
    warning = record("Child process [7] died", name="uvicorn.error")

    assert [paced.filter(warning) for _ in range(3)] == [True] * 3


@pytest.mark.usefixtures("bare_logging")
def test_the_errors_of_requests_are_paced_in_a_process() -> None:
    configure_logging("info")
    configure_logging("info")

    for name in PACED:
        assert [type(each) for each in logging.getLogger(name).filters] == [Paced]

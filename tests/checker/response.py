"""One HTTP/1.1 response, from its bytes as they arrive.

Knows status line, header fields, and the three ways in which a body is delimited. Does not know
what the body is.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re
from enum import Enum, auto

HEAD_LIMIT_BYTES = 65_536
LINE_LIMIT_BYTES = 4096
"""Of a chunk's size, or of a trailer."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")


class Malformed(ValueError):
    """The bytes are no HTTP/1.1 response."""


class Part(Enum):
    """What comes next.

    HEAD leads to SIZE (chunked), LENGTH (Content-Length), UNTIL_CLOSE (neither) or DONE (no body).
    SIZE leads to CHUNK, or after the last chunk to TRAILER; CHUNK to CHUNK_END, CHUNK_END to SIZE.
    TRAILER, LENGTH and, at the end of the connection, UNTIL_CLOSE lead to DONE. Bytes that can't be
    part of a response lead to BROKEN.
    """

    HEAD = auto()
    SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    LENGTH = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()
    BROKEN = auto()


class Response:
    """Takes the bytes of one response, and gives those of its body."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        """By name in lower case; a field that comes again is appended with a comma."""
        self.part = Part.HEAD
        self.flaw = ""
        """Why the bytes are no HTTP/1.1 response; empty if they may be one."""
        self._buffer = b""
        self._left_bytes = 0

    @property
    def is_complete(self) -> bool:
        """Return whether the response has come to its own end."""
        return self.part is Part.DONE

    def feed(self, data: bytes) -> bytes:
        """Take what has arrived; return the bytes of the body in it, up to the first flaw."""
        self._buffer += data
        body = bytearray()
        try:
            while self._step(body):
                pass
        except Malformed as exc:
            self.part, self.flaw = Part.BROKEN, str(exc)
        return bytes(body)

    def close(self) -> None:
        """Say that the connection has ended; a body without length of its own ends with it."""
        if self.part is Part.UNTIL_CLOSE:
            self.part = Part.DONE

    def _step(self, body: bytearray) -> bool:
        """Take one part out of the buffer; return False if that needs more bytes."""
        match self.part:
            case Part.HEAD:
                return self._take_head()
            case Part.SIZE:
                return self._take_size()
            case Part.CHUNK | Part.LENGTH:
                return self._take_bytes(body)
            case Part.CHUNK_END:
                return self._take_end_of_chunk()
            case Part.TRAILER:
                line = self._take_line()
                self.part = Part.DONE if line == b"" else Part.TRAILER
                return line is not None
            case Part.UNTIL_CLOSE:
                body += self._buffer
                self._buffer = b""
            case Part.DONE if self._buffer:
                raise Malformed(f"expected nothing after the response, got {self._buffer[:40]!r}")
            case Part.DONE | Part.BROKEN:
                pass
        return False

    def _take_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise Malformed(f"expected a head of at most {HEAD_LIMIT_BYTES} bytes")
            return False
        self._buffer = rest
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise Malformed(f"expected a status line, got {first[:40]!r}")
        self.status = int(status[1])
        for line in lines:
            found = _FIELD.fullmatch(line)
            if found is None:
                raise Malformed(f"expected a header field, got {line[:40]!r}")
            name, value = found[1].decode().lower(), found[2].decode("latin-1")
            known = self.fields.get(name)
            self.fields[name] = value if known is None else f"{known}, {value}"
        self._delimit()
        return True

    def _delimit(self) -> None:
        """Decide how the body ends: RFC 9112, section 6.3."""
        coding, length = self.fields.get("transfer-encoding"), self.fields.get("content-length")
        if self.status < 200 or self.status in (204, 304):
            self.part = Part.DONE
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Malformed(f"expected chunked alone, got {coding!r} and length {length!r}")
            self.part = Part.SIZE
        elif length is not None:
            if not re.fullmatch(r"\d{1,18}", length):
                raise Malformed(f"expected a length, got {length!r}")
            self._left_bytes = int(length)
            self.part = Part.LENGTH if self._left_bytes else Part.DONE
        else:
            self.part = Part.UNTIL_CLOSE

    def _take_size(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Malformed(f"expected the size of a chunk, got {line[:40]!r}")
        self._left_bytes = int(found[1], 16)
        self.part = Part.CHUNK if self._left_bytes else Part.TRAILER
        return True

    def _take_bytes(self, body: bytearray) -> bool:
        taken = self._buffer[: self._left_bytes]
        body += taken
        self._buffer = self._buffer[len(taken) :]
        self._left_bytes -= len(taken)
        if self._left_bytes:
            return False
        self.part = Part.CHUNK_END if self.part is Part.CHUNK else Part.DONE
        return True

    def _take_end_of_chunk(self) -> bool:
        end, rest = self._buffer[:2], self._buffer[2:]
        if not b"\r\n".startswith(end):
            raise Malformed(f"expected CRLF after a chunk, got {end!r}")
        if len(end) < 2:
            return False
        self._buffer = rest
        self.part = Part.SIZE
        return True

    def _take_line(self) -> bytes | None:
        """Return the next line without its CRLF; None if it is not whole yet."""
        line, end, rest = self._buffer.partition(b"\r\n")
        if len(line) > LINE_LIMIT_BYTES:
            raise Malformed(f"expected CRLF within {LINE_LIMIT_BYTES} bytes, got {line[:40]!r}")
        if not end:
            return None
        self._buffer = rest
        return line

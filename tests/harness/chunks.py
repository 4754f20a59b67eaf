"""The chunked coding of HTTP/1.1, taken off: the one reader of chunks that tests have."""

from __future__ import annotations


class Dechunker:
    """Turn the chunks of one response into the bytes in them, as they arrive.

    https://www.rfc-editor.org/rfc/rfc9112#name-chunked-transfer-coding
    """

    def __init__(self) -> None:
        self.is_complete = False
        """The last chunk has arrived."""
        self._buffer = b""
        self._rest = 0
        """Bytes still to come of a chunk, with the line end after it."""
        self._is_last = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that these chunks, or pieces of chunks, bring."""
        self._buffer += data
        body = b""
        while self._buffer and not self.is_complete:
            if self._rest > 2:
                part, self._buffer = self._split(self._rest - 2)
                body += part
            elif self._rest > 0:
                part, self._buffer = self._split(self._rest)
                assert part in b"\r\n", f"expected the end of a chunk, got {part!r}"
                self.is_complete = self._is_last and self._rest == 0
            else:
                size, line_end, rest = self._buffer.partition(b"\r\n")
                if not line_end:
                    break
                self._is_last = int(size, 16) == 0
                self._rest = int(size, 16) + 2
                self._buffer = rest
        return body

    def _split(self, size: int) -> tuple[bytes, bytes]:
        part = self._buffer[:size]
        self._rest -= len(part)
        return part, self._buffer[size:]

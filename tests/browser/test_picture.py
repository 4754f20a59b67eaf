"""The picture at the top of README: a screenshot of the demo's page.

``python -m tests.browser.test_picture`` makes it anew. The picture knows where the parts of the
page were, and is compared with those of the page as it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from tests.harness.browsers import open_window
from tests.harness.demo import Demo
from tests.harness.waiting import SECOND, program

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "client" / "demo" / "demo.png"
SIZE = ViewportSize(width=1440, height=900)
LIMIT_BYTES = 200_000
TOLERANCE_PX = 32
"""How much another machine's fonts may move a part."""

PARTS = """() => [...document.querySelectorAll(
        'header, h1, .claim p, .pane, .trace, .total, .steps li, .history, figure, footer')]
    .map(part => ({ part, box: part.getBoundingClientRect() }))
    .filter(({ box }) => box.width > 0)
    .map(({ part, box: { x, y, width, height } }) =>
        [`${part.tagName} ${part.id}`, ...[x, y, width, height].map(Math.round)])
"""
SALES = ("C7", "F3", "C8", "F4", "D6", "G9", "D7", "B2", "E10", "B3", "E11", "H5", "A6", "F9")
ANEW = "python -m tests.browser.test_picture makes the picture anew"
SETTLED = """() => document.getAnimations().length === 0"""


async def show(page: Page, url: str, sales: Sequence[str]) -> None:
    """Open the page, and sell these seats in either browser."""
    await page.goto(url)
    for pane in ("left", "right"):
        await expect(page.locator(f"#{pane} [data-state=open]")).to_be_visible(
            timeout=10_000 * SECOND
        )
    for number, name in enumerate(sales):
        seller, other = ("left", "right") if number % 2 == 0 else ("right", "left")
        await page.locator(f"#{seller} [data-seat={name}]").click()
        await expect(page.locator("#what")).to_have_text(f"{name} sold")
        await expect(page.locator("#step-drawn")).to_have_class("done")
        await expect(page.locator(f"#{other} [data-seat={name}]")).to_have_attribute(
            "data-state", "sold"
        )


async def make_picture() -> None:
    with tempfile.TemporaryDirectory() as folder, Demo.start(Path(folder)) as demo:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=program("chromium"), args=["--no-sandbox"]
            )
            page = await browser.new_page(viewport=SIZE, reduced_motion="reduce")
            await show(page, demo.url, SALES)
            await page.mouse.move(0, 0)
            await page.wait_for_function(SETTLED)
            png = await page.screenshot()
            parts = json.dumps(await page.evaluate(PARTS))
            measured = [
                await page.locator(name).inner_text() for name in ("#trace .figure", "#median")
            ]
            sys.stdout.write(f"{', '.join(measured)}; a machine that is busy makes it slower\n")
            await browser.close()
    PICTURE.write_bytes(in_few_colors(png, b"parts\0" + parts.encode()))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and data of each chunk.

    https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def rows_of(png: bytes, width: int) -> Iterator[bytes]:
    """Yield the pixels of each row, as red, green and blue.

    https://www.w3.org/TR/png-3/#9Filter-types
    """
    packed = b"".join(data for kind, data in chunks(png) if kind == b"IDAT")
    stream, length = zlib.decompress(packed), 3 * width
    above = bytes(3 + length)  # with a pixel of zeros before the first one
    for start in range(0, len(stream), 1 + length):
        kind, row = stream[start], bytearray(3)
        for at, value in enumerate(stream[start + 1 : start + 1 + length]):
            left, up, corner = row[at], above[at + 3], above[at]
            paeth = min((left, up, corner), key=lambda each: abs(left + up - corner - each))
            row.append((value + (0, left, up, (left + up) // 2, paeth)[kind]) % 256)
        yield bytes(row[3:])
        above = bytes(row)


def in_few_colors(png: bytes, text: bytes) -> bytes:
    """Return nearly the same image in 256 colors, one of each kind at least, and a text in it."""
    rows = [
        [row[at : at + 3] for at in range(0, len(row), 3)] for row in rows_of(png, SIZE["width"])
    ]
    colors = Counter(color for row in rows for color in row)
    common = [color for color, _ in colors.most_common()]
    kinds = {bytes(value >> 4 for value in color): color for color in reversed(common)}
    palette = list(dict.fromkeys([*kinds.values(), *common]))[:256]
    nearest = {
        color: min(range(len(palette)), key=lambda at: distance(palette[at], color))
        for color in colors
    }
    pixels = b"".join(bytes((0, *map(nearest.__getitem__, row))) for row in rows)
    written = {
        b"IHDR": struct.pack(">IIBBBBB", SIZE["width"], SIZE["height"], 8, 3, 0, 0, 0),
        b"tEXt": text,
        b"PLTE": b"".join(palette),
        b"IDAT": zlib.compress(pixels, 9),
        b"IEND": b"",
    }
    return png[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in written.items()
    )


def distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def test_the_readme_begins_with_the_picture() -> None:
    first, second, third, *_ = (ROOT / "README.md").read_text().splitlines()

    (path,) = re.findall(r"^!\[.{20,}\]\((.+)\)$", third)
    assert (first, second) == ("# sse-push", "")
    assert ROOT / path == PICTURE


def test_the_picture_is_small() -> None:
    header = dict(chunks(PICTURE.read_bytes()))[b"IHDR"]

    assert struct.unpack_from(">II", header) == (SIZE["width"], SIZE["height"])
    assert PICTURE.stat().st_size <= LIMIT_BYTES


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_the_picture_shows_the_page_as_it_is(tmp_path: Path, browser: Browser) -> None:
    text = dict(chunks(PICTURE.read_bytes()))[b"tEXt"]
    pictured = json.loads(text.removeprefix(b"parts\0"))
    with Demo.start(tmp_path) as demo:
        async with open_window(browser, viewport=SIZE, reduced_motion="reduce") as page:
            await show(page, demo.url, SALES[:1])
            shown = await page.evaluate(PARTS)

    assert [name for name, *_ in shown] == [name for name, *_ in pictured], ANEW
    for (name, *now), (_, *then) in zip(shown, pictured, strict=True):
        moved = [abs(a - b) for a, b in zip(now, then, strict=True)]
        assert max(moved) <= TOLERANCE_PX, f"{name} has moved: {ANEW}"


if __name__ == "__main__":
    asyncio.run(make_picture())

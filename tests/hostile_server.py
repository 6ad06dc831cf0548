"""A real HTTP server on loopback whose answers are those of the worst web servers.

Paths say what is answered; ``requests`` counts them by path, ``most_at_once`` and ``starts`` show
how politely the client asks.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import numpy as np
from aiohttp import web
from PIL import Image

JPEG = {"Content-Type": "image/jpeg"}


def photo(number: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A smooth colour picture that depends on the number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The image's bytes in a format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """A few bytes of PNG that claim billions of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@functools.cache
def gzip_bomb() -> bytes:
    """100 MB of zeros in 100 kB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**24)) for _ in range(6)) + packer.flush()


def special_images() -> dict[str, bytes]:
    """Images in kinds that naive code gets wrong, by path."""
    frames = [photo(n) for n in range(4)]
    alpha = photo(7).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    palette.paste(0, (0, 0, 20, 40))
    turned = Image.Exif()
    turned[0x0112] = 6
    greys = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    whole = encoded(photo(3, (400, 300)))
    return {
        "animated.gif": encoded(
            frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50
        ),
        "cmyk.jpg": encoded(photo(5).convert("CMYK")),
        "exif.jpg": encoded(photo(6), exif=turned),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=0),
        "grey16.png": encoded(greys, "PNG"),
        "photo.webp": encoded(photo(8), "WEBP", lossless=True),
        "truncated.jpg": whole[: len(whole) // 2],
        "huge.png": huge_png(),
        "text.jpg": b"this is no image at all",
        "tiny.png": encoded(photo(9, (3, 3)), "PNG"),
        "long.png": encoded(photo(10, (400, 20)), "PNG"),
    }


class HostileServer:
    """Serves on a free port of ``host`` in a thread of its own; use as a context manager."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.starts: list[float] = []
        self.at_once = self.most_at_once = 0
        self.sent = 0
        self.delay = 0.0
        self.specials = special_images()
        self.bomb = gzip_bomb()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://{self.host}:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests[path] += 1
        self.starts.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            name, _, rest = path.partition("/")
            if name in self.specials:
                return web.Response(body=self.specials[name], headers=JPEG)
            handlers: dict[str, Callable[[web.Request, str], Awaitable[web.StreamResponse]]] = {
                "photo": self._photo, "large": self._large, "endless": self._endless,
                "drip": self._drip, "loop": self._loop_around, "to": self._to,
                "status": self._status, "flaky": self._flaky, "busy": self._busy,
                "page": self._page, "robots": self._robots, "gzip": self._gzip,
                "bomb": self._bomb, "brotli": self._brotli, "cut": self._cut,
                "empty": self._empty, "nolocation": self._nolocation, "headers": self._headers,
            }  # fmt: skip
            return await handlers[name](request, rest)
        except ConnectionResetError:
            return web.Response()  # the client had enough
        finally:
            self.at_once -= 1

    async def _photo(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(body=encoded(photo(int(rest.removesuffix(".jpg")))), headers=JPEG)

    async def _large(self, request: web.Request, rest: str) -> web.StreamResponse:
        picture = encoded(photo(int(rest.removesuffix(".jpg"))))
        return web.Response(body=picture + bytes(1 << 20), headers=JPEG)

    async def _endless(self, request: web.Request, rest: str) -> web.StreamResponse:
        response = web.StreamResponse(headers=JPEG)
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))
            self.sent += 65536

    async def _drip(self, request: web.Request, rest: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={**JPEG, "Content-Length": "100000"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    async def _loop_around(self, request: web.Request, rest: str) -> web.StreamResponse:
        raise web.HTTPFound(f"/loop/{'b' if rest == 'a' else 'a'}")

    async def _to(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.query["url"]})

    async def _nolocation(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(status=301)

    async def _status(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(status=int(rest))

    async def _flaky(self, request: web.Request, rest: str) -> web.StreamResponse:
        if self.requests[f"flaky/{rest}"] == 1:
            return web.Response(status=500)
        return await self._photo(request, "1")

    async def _busy(self, request: web.Request, rest: str) -> web.StreamResponse:
        """429 at first; ``rest`` is the Retry-After."""
        if self.requests[f"busy/{rest}"] == 1:
            return web.Response(status=429, headers={"Retry-After": rest})
        return await self._photo(request, "2")

    async def _page(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(text="<html>not found, but 200</html>", content_type="text/html")

    async def _robots(self, request: web.Request, rest: str) -> web.StreamResponse:
        body = encoded(photo(1))
        return web.Response(body=body, headers={**JPEG, "X-Robots-Tag": request.query["tag"]})

    async def _gzip(self, request: web.Request, rest: str) -> web.StreamResponse:
        body = gzip.compress(encoded(photo(4)))
        return web.Response(body=body, headers={**JPEG, "Content-Encoding": "gzip"})

    async def _bomb(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(body=self.bomb, headers={**JPEG, "Content-Encoding": "gzip"})

    async def _brotli(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(body=b"x" * 100, headers={**JPEG, "Content-Encoding": "br"})

    async def _cut(self, request: web.Request, rest: str) -> web.StreamResponse:
        """Closes the connection in the middle of the body."""
        body = encoded(photo(1))
        response = web.StreamResponse(headers={**JPEG, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    async def _empty(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(body=b"", headers=JPEG)

    async def _headers(self, request: web.Request, rest: str) -> web.StreamResponse:
        return web.Response(body=encoded(photo(1)), headers={**JPEG, "X-Long": "y" * 100_000})

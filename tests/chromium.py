"""A headless Chromium to test pages with, driven over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
TIMEOUT_SECONDS = 60.0
# Chromium wants the pipe's ends as descriptors 3 and 4.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in enumerate(ends, 3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a running Chromium; ``events`` collects what it reports."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and wait for its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._pending:
            ready, _, _ = select([self._from], [], [], until - time.monotonic())
            assert ready, "chromium does not answer"
            piece = os.read(self._from, 1 << 20)
            assert piece, "chromium has ended"
            self._pending += piece
        message, self._pending = self._pending.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page from its file in a window of that size; forgets earlier events."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; what a promise of it comes to."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as soon as it is a true one."""
        until = time.monotonic() + TIMEOUT_SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < until, f"{expression} stays {value!r}"
            time.sleep(0.01)
        return value

    def axe(self) -> dict[str, Any]:
        """What axe-core's rules of accessibility find in the page."""
        rules = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.evaluate(f"{rules}; 1")
        # What a page does when sizes change, it does when the next frame is drawn.
        self.evaluate("new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))")
        return self.evaluate("axe.run({resultTypes: ['violations']})")

    def complaints(self) -> list[str]:
        """Console errors, policy violations and uncaught exceptions since the page was opened."""
        self.evaluate("1")
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters))
            elif event["method"] == "Log.entryAdded":
                found.append(parameters["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(json.dumps(parameters["args"]))
        return found

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Start Chromium with an empty profile; it ends with the block."""
    read_commands, to_browser = os.pipe()
    from_browser, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(
        prefix="chromium-",
        ignore_cleanup_errors=True,  # its helper processes may outlive it for a moment
    ) as profile:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(read_commands), str(write_answers),
             executable, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_commands)
        os.close(write_answers)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(30)
            os.close(to_browser)
            os.close(from_browser)

"""A headless Chromium that opens one file from disk, or one address of this machine, and says what happened.

Tests that are marked `needed` skip on a machine without Chromium, and the last words of the run say so.
"""

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

BARE_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
FLAGS = (*BARE_FLAGS, "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WITHOUT_WEBGL = (*BARE_FLAGS, "--disable-gpu", "--disable-software-rasterizer", "--disable-3d-apis")
PATIENCE = 120  # seconds for a page to say that it is ready
PROGRAMS = ("chromium", "google-chrome")  # either will do; Debian has the first as a package of that name
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
MISSING = "no page was opened in a browser, since Chromium is not installed"

needed = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
DOWNLOADS = "downloads"  # folder in the profile where downloaded files arrive
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
TEXTS = {"Enter": "\r", "Space": " "}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip is easily overlooked: say at the end that there were some, and the remedy."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if MISSING in str(report.longrepr)]
    if skipped:
        terminalreporter.section("BROWSER TESTS WERE SKIPPED", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} of the tests did not run: {MISSING}.")
        terminalreporter.line("On Debian, apt-get install chromium brings it; then run them again.")


@dataclass(frozen=True)
class Press:
    """A key, as a person presses it: one of KEYS, or a single letter or sign, "Shift+" before it or not; held down for some
    seconds."""

    key: str
    held: float = 0.0


@dataclass(frozen=True)
class Picture:
    """What the window shows, as the bytes of a PNG, once it is what is wanted: drawing takes as long as it takes."""

    wanted: Callable[[bytes], bool] = lambda png: True


@dataclass(frozen=True)
class Arrival:
    """Wait for a downloaded file of this name."""

    name: str


Step = str | Press | Picture | Arrival  # a string is an expression of JavaScript, whose value is the answer


@dataclass
class Visit:
    """answers: what the steps came to; complaints: console errors, warnings and exceptions; requests: addresses."""

    answers: list = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def visit(
    page: Path | str, profile: Path, width: int, ready: str, *steps: Step, flags: tuple[str, ...] = FLAGS
) -> Visit:
    """Open a file, or an address, in a window of a width, wait until the expression `ready` is true, and take the steps."""
    process = subprocess.Popen(
        [PROGRAM, *flags, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return asyncio.run(asyncio.wait_for(talk(page, profile, width, ready, steps), PATIENCE + 30))
    finally:
        process.kill()
        process.wait()


async def talk(page: Path | str, profile: Path, width: int, ready: str, steps: tuple[Step, ...]) -> Visit:
    port_file, start, found = profile / "DevToolsActivePort", time.monotonic(), Visit()
    while not port_file.exists():
        assert time.monotonic() - start < PATIENCE, "Chromium did not start"
        await asyncio.sleep(0.1)
    port = port_file.read_text().splitlines()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
            address = next(tab["webSocketDebuggerUrl"] for tab in await listed.json() if tab["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            number = 0

            async def ask(method: str, **parameters: object) -> dict:
                nonlocal number
                number += 1
                await socket.send_json({"id": number, "method": method, "params": parameters})
                while (message := await socket.receive_json()).get("id") != number:
                    note(message, found)
                return message.get("result", {})

            async def evaluate(expression: str) -> object:
                answer = await ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
                return answer["result"].get("value")

            async def take(step: Step) -> object:
                if isinstance(step, str):
                    return await evaluate(step)
                if isinstance(step, Picture):
                    while not step.wanted(png := base64.b64decode((await ask("Page.captureScreenshot"))["data"])):
                        await asyncio.sleep(0.2)
                    return png
                if isinstance(step, Arrival):
                    while not (profile / DOWNLOADS / step.name).exists():
                        await asyncio.sleep(0.1)
                    return None
                shifted, key = step.key.startswith("Shift+"), step.key.removeprefix("Shift+")
                text = TEXTS.get(key, key if key not in KEYS else "")
                about = {
                    "key": text if key == "Space" else key,
                    "code": key if key in KEYS else f"Key{key.upper()}",
                    "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper())),
                    "modifiers": 8 if shifted else 0,
                }
                await ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
                await asyncio.sleep(step.held)
                await ask("Input.dispatchKeyEvent", type="keyUp", **about)
                return None

            for domain in ("Runtime", "Log", "Network", "Page"):
                await ask(f"{domain}.enable")
            await ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            folder = str(profile.absolute() / DOWNLOADS)
            await ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
            await ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
            while not await evaluate(ready):
                assert time.monotonic() - start < PATIENCE, f"{ready} did not become true: {found.complaints}"
                await asyncio.sleep(0.2)
            found.answers = [await take(step) for step in steps]
    return found


def note(message: dict, found: Visit) -> None:
    """Keep what an event of the browser says."""
    method, about = message.get("method"), message.get("params", {})
    if method == "Network.requestWillBeSent":
        found.requests.append(about["request"]["url"])
    elif method == "Runtime.exceptionThrown":
        found.complaints.append(str(about["exceptionDetails"]))
    elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
        found.complaints.append(about["entry"]["text"])
    elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
        found.complaints.append(str(about["args"]))

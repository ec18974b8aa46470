"""A real browser without a window, driven over the DevTools protocol with Tornado, which Flower depends on."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.waiting import LIMIT_S, wait_for

__all__ = ["Browser", "browser_program"]


def browser_program() -> str | None:
    names = ("chromium", "google-chrome", "chromium-browser", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One page. `errors` holds what the developer's console would show as errors; dialogs are answered with
    `accept_dialogs`."""

    def __init__(self, program: str, folder: Path) -> None:
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.accept_dialogs = False
        self._last = 0
        options = [
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # which is 64 MB in a container
            "--disable-extensions",
            "--disable-component-update",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
        ]
        if os.geteuid() == 0:  # its sandbox does not work for root
            options.append("--no-sandbox")
        log = (folder.parent / "browser.log").open("w")
        self._process = subprocess.Popen([program, *options, "about:blank"], stdout=log, stderr=log)
        log.close()
        self._loop = asyncio.new_event_loop()
        self._socket: WebSocketClientConnection = self._run(self._connected(self._page(folder)))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def open(self, url: str, **headers: str) -> None:
        self.command("Network.setExtraHTTPHeaders", headers=headers)
        self.command("Page.navigate", url=url)
        wait_for(lambda: self.script("document.readyState") == "complete", "the page did not load")

    def script(self, text: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.command("Runtime.evaluate", expression=text, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.script(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def wait_for_script(self, text: str) -> Any:
        """The value that the promise of a JavaScript expression comes to."""
        answer = self.command("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def prefer(self, **features: str) -> None:
        """What the person prefers, by the names of media features: `prefers_color_scheme`, for example."""
        said = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", features=said)

    def press(self, key: str) -> None:
        """Press a key where the focus is: `Tab`, `ArrowLeft`, `Enter`."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}
        for kind in ("rawKeyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        answer = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._run(self._command(method, parameters))  # type: ignore[no-any-return]

    def close(self) -> None:
        self._run(self._disconnected())
        self._loop.close()
        self._process.terminate()
        self._process.wait(LIMIT_S)

    async def _connected(self, address: str) -> WebSocketClientConnection:
        return await websocket_connect(address)

    async def _disconnected(self) -> None:
        self._socket.close()
        while await self._socket.read_message() is not None:
            pass

    async def _command(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = await self._send(method, parameters)
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.read_message(), LIMIT_S))  # type: ignore[arg-type]
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]  # type: ignore[no-any-return]
            if "method" in message:
                await self._event(message["method"], message["params"])

    async def _event(self, method: str, said: dict[str, Any]) -> None:
        if method == "Page.javascriptDialogOpening":
            self.dialogs.append(said["message"])
            await self._send("Page.handleJavaScriptDialog", {"accept": self.accept_dialogs})
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"]))
        elif (method == "Log.entryAdded" and said["entry"]["level"] == "error") or (
            method == "Runtime.consoleAPICalled" and said["type"] == "error"
        ):
            self.errors.append(json.dumps(said))

    async def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._last += 1
        await self._socket.write_message(json.dumps({"id": self._last, "method": method, "params": parameters}))
        return self._last

    def _page(self, folder: Path) -> str:
        note = folder / "DevToolsActivePort"
        wait_for(lambda: note.exists() and note.read_text().count("\n"), "the browser did not start")
        address = f"http://127.0.0.1:{note.read_text().split()[0]}/json/list"
        with urllib.request.urlopen(address, timeout=LIMIT_S) as answer:
            pages = json.loads(answer.read())
        return next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")  # type: ignore[no-any-return]

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

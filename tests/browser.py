"""A headless Chromium for tests of pages, driven over its debugging pipe with the standard library alone.

`executable` looks at $FOLEYLIB_CHROMIUM (a path), at the PATH, and at scratch/chromium. With CI=true, or
FOLEYLIB_CHROMIUM=fetch, it gets one build from the npm package `PACKAGE` into scratch/chromium (70 MB, checked by
SHA-256; needs npm, node and x86-64 Linux). Elsewhere tests that need a browser are skipped.
"""

import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / "scratch" / "chromium"
PACKAGE = "@sparticuz/chromium@153.0.0"  # MIT; chrome-headless-shell and the libraries a bare machine lacks
SHA256 = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
UNPACK = (
    "const fs=require('fs'),[,a,b]=process.argv;"
    "fs.writeFileSync(b,require('zlib').brotliDecompressSync(fs.readFileSync(a)))"
)
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, "")}
LIMIT = 20  # seconds


def executable():
    """Path of a Chromium; LookupError with the remedy where there is none."""
    wanted = os.environ.get("FOLEYLIB_CHROMIUM", "")
    if wanted and wanted != "fetch":
        if not Path(wanted).is_file():
            raise LookupError(f"FOLEYLIB_CHROMIUM={wanted} is no file; give the path of a Chromium, or 'fetch'")
        return wanted
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    if (CACHE / "chromium").is_file():
        return str(CACHE / "chromium")
    if wanted != "fetch" and os.environ.get("CI") != "true":
        raise LookupError("no Chromium on the PATH; install one, or set FOLEYLIB_CHROMIUM to its path or to 'fetch'")
    return _fetch()


def _fetch():
    if (
        not shutil.which("npm")
        or not shutil.which("node")
        or (platform.system(), platform.machine()) != ("Linux", "x86_64")
    ):
        raise LookupError("no Chromium, and none can be fetched without npm, node and x86-64 Linux; install one")
    part = CACHE.with_name(f"chromium.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    packed = subprocess.run(["npm", "pack", "--silent", PACKAGE, "--pack-destination", str(part)], check=False,
                            capture_output=True, text=True, timeout=300)  # fmt: skip
    if packed.returncode:
        raise LookupError(f"no Chromium, and {PACKAGE} could not be fetched: {packed.stderr.strip()[-300:]}")
    (package,) = part.glob("*.tgz")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{PACKAGE} has SHA-256 {digest}, not {SHA256}: it is not used")
    with tarfile.open(package) as archive:
        archive.extractall(part, filter="data")
    for name in ("chromium", "al2023.tar"):
        subprocess.run(
            ["node", "-e", UNPACK, str(part / "package" / "bin" / f"{name}.br"), str(part / name)], check=True
        )
    with tarfile.open(part / "al2023.tar") as archive:
        archive.extractall(part, filter="data")  # lib/
    (part / "chromium").chmod(0o755)
    for spare in (package, part / "al2023.tar"):
        spare.unlink()
    shutil.rmtree(part / "package")
    shutil.rmtree(CACHE, ignore_errors=True)
    part.rename(CACHE)
    return str(CACHE / "chromium")


class Browser:
    """One page of a headless Chromium that reaches no network; `problems` and `requests` collect what it reports."""

    def __init__(self, path, folder):
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (commands, answers)]  # out of the way of 3 and 4

        def place():  # Chromium reads commands on descriptor 3 and answers on 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
                 "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
                 f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
        libraries = Path(path).parent / "lib"
        more = {"LD_LIBRARY_PATH": str(libraries)} if libraries.parent == CACHE else {}
        self._process = subprocess.Popen([path, *flags, "about:blank"], preexec_fn=place, close_fds=False,  # noqa: PLW1509
                                         env=os.environ | more, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
        for fd in (commands, answers, *high):
            os.close(fd)
        self._session, self._number, self._buffer = None, 0, b""
        self.problems, self.requests, self.events = [], [], []
        self._open(folder)

    def _open(self, folder):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def close(self):
        self._process.terminate()
        self._process.wait(LIMIT)
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **params):
        """Result of one command; what is reported in the meantime is collected."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._collect(answer)

    def _receive(self):
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], LIMIT)[0]:
                raise TimeoutError(f"the browser said nothing for {LIMIT} s")
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has closed its pipe")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _collect(self, event):
        method, params = event["method"], event.get("params", {})
        self.events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:80])
        wrong = method == "Runtime.exceptionThrown" or params.get("type") == "error"
        if wrong or params.get("entry", {}).get("level") == "error":
            self.problems.append(json.dumps(params)[:500])

    def evaluate(self, script):
        """Value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script):
        """Until an expression is true in the page."""
        end = time.monotonic() + LIMIT
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise TimeoutError(f"not true within {LIMIT} s: {script}; problems: {self.problems}")
            time.sleep(0.02)

    def load(self, path):
        """Open a file; its scripts have run on return."""
        self.evaluate("window.before = true")
        self.call("Page.navigate", url=Path(path).as_uri())
        self.wait("!window.before && document.readyState === 'complete'")

    def click(self, selector):
        """Press and release the mouse on the middle of an element."""
        middle = f"""(() => {{ const e = document.querySelector({json.dumps(selector)}); 
            e.scrollIntoView({{block: "center"}});
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.evaluate(middle)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        """Insert text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key, times=1):
        """Press a key of `KEYS`."""
        code, text = KEYS[key]
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                more = {"text": text} if text and kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key,
                          windowsVirtualKeyCode=code, **more)  # fmt: skip

"""A server on this machine that speaks the Hugging Face Hub's protocol, for the Hub's own client.

It serves a folder that holds one folder a repository: ROOT/cvssp/audioldm-m-full/unet/config.json is the file
unet/config.json of cvssp/audioldm-m-full, ROOT/roberta-base/vocab.json one of roberta-base (data sets lie in ROOT/datasets).
Every repository has one commit, `commit_of` its name, which is also its branch main.

`python tests/loopback_hub.py ROOT [--port N]` prints the address and serves until it is killed; the client takes it from
the variable HF_ENDPOINT, which it reads when it is imported:

    HF_ENDPOINT=http://127.0.0.1:PORT HF_HUB_CACHE=FOLDER NO_PROXY=127.0.0.1 COMMAND
"""

import argparse
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"api/(?:models/)?(?P<repo>.+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+)(?:/(?P<below>.+))?)?")
FILE = re.compile(r"(?P<repo>.+?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


def commit_of(repository: str) -> str:
    """The commit of a repository: 40 hexadecimal digits made of its name."""
    return hashlib.sha1(repository.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the listing of a repository, its files as a tree, and a file, with ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        listing, file = API.fullmatch(path), FILE.fullmatch(path)
        asked = listing or file
        if asked is None or not (self.server.root / asked["repo"]).is_dir():
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        if asked["revision"] not in (None, "main", commit_of(asked["repo"])):
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        return self.list_files(listing) if listing else self.send_file(file["repo"], file["name"])

    do_HEAD = do_GET

    def list_files(self, asked: re.Match):
        folder = self.server.root / asked["repo"]
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if asked["what"] == "tree":
            below = f"{asked['below']}/" if asked["below"] else ""
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": sha1(path)}
                for name, path in files.items()
                if name.startswith(below)
            ]
        else:
            siblings = [{"rfilename": name} for name in files]
            content = {"id": asked["repo"], "sha": commit_of(asked["repo"]), "private": False, "siblings": siblings}
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def send_file(self, repository: str, name: str):
        file, commit = self.server.root / repository / name, {"X-Repo-Commit": commit_of(repository)}
        if not file.is_file():
            return self.answer(404, {"X-Error-Code": "EntryNotFound", **commit})
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes", **commit}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        breaks = self.server.breaks.get(name, []) if self.command == "GET" else []
        return self.answer(206 if asked else 200, headers, content[start:], breaks.pop(0) if breaks else None)

    def answer(self, status: int, headers: dict, body: bytes = b"", broken_after: int | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:broken_after])
        if broken_after is not None:
            self.close_connection = True

    def log_message(self, *_):
        """Keep the output quiet."""


class Hub(ThreadingHTTPServer):
    """The server of a folder.

    `requests` lists what was asked for (method, path, range). `breaks` names files whose next transfers break off, with
    the bytes that are still sent: {"unet/model.safetensors": [1000, 0]} breaks two transfers of it.
    """

    daemon_threads = True

    def __init__(self, root: str | Path, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.root, self.requests, self.breaks = Path(root), [], {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(root: str | Path):
    """A `Hub` of a folder that answers while the block runs."""
    with Hub(root) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def point_client_at(url: str, cache: Path, monkeypatch) -> None:
    """Make the Hub's client of this process ask `url` and keep its files in `cache`, while a test runs."""
    from huggingface_hub import constants

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def sha1(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with a folder for each repository")
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    arguments = parser.parse_args()
    if not arguments.root.is_dir():
        parser.error(f"{arguments.root} is no folder")
    with Hub(arguments.root, arguments.port) as hub:
        print(hub.url, flush=True)
        hub.serve_forever()


if __name__ == "__main__":
    main()

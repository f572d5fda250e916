"""Downloads from a loopback server, and archives that must not be trusted."""

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_corpora import corpus, esc50

from foleylib.corpora.fetch import CHUNK, FetchError, fetch, provide, unpack
from foleylib.corpora.prepare import prepare
from foleylib.params.corpora import Archive

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the server's content with ranges; /broken stops midway on the first request, /plain ignores ranges."""

    def do_GET(self):
        content, ranges, broken = (
            self.server.content,
            self.server.ranges,
            self.path == "/broken" and not self.server.ranges,
        )
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.path != "/plain" else 0
        ranges.append(self.headers.get("Range"))
        status = {"/absent": 404, "/busy": 503}.get(self.path, 416 if start >= len(content) else 206 if start else 200)
        body = content[start:] if status < 300 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if broken else body)

    def log_message(self, *_):
        """Keep the test output quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges = CONTENT, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_and_keep(server, tmp_path):
    dest = tmp_path / "new/file.bin"
    fetch(f"{server.url}/file", SHA256.upper(), dest)
    assert dest.read_bytes() == CONTENT and not (tmp_path / "new/file.bin.part").exists()
    fetch(f"{server.url}/file", SHA256, dest)
    assert server.ranges == [None]  # the second call sends nothing


@pytest.mark.parametrize("path, had", [("/file", 1000), ("/plain", 1000), ("/file", len(CONTENT))])
def test_resumes_a_part(server, tmp_path, path, had):
    (tmp_path / "file.part").write_bytes(CONTENT[:had])
    fetch(server.url + path, SHA256, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT and server.ranges == [f"bytes={had}-"]


def test_resumes_after_a_broken_connection(server, tmp_path):
    fetch(f"{server.url}/broken", SHA256, tmp_path / "file", wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2 // CHUNK * CHUNK}-"]


@pytest.mark.parametrize("name", ["file.part", "file"])
@pytest.mark.parametrize("stale", [b"another version", CONTENT + b"more"])
def test_a_file_of_another_hash_is_never_taken(server, tmp_path, name, stale):
    (tmp_path / name).write_bytes(stale)
    with pytest.raises(FetchError, match=f"{name}: SHA-256 is .* expected {SHA256} .* remove the file"):
        fetch(f"{server.url}/file", SHA256, tmp_path / "file")
    assert (tmp_path / name).read_bytes().startswith(stale) and (tmp_path / "file").exists() == (name == "file")


@pytest.mark.parametrize("path, message, tries", [("/absent", "answered 404", 1), ("/busy", "failed 3 times", 3)])
def test_refusals(server, tmp_path, path, message, tries):
    with pytest.raises(FetchError, match=message):
        fetch(server.url + path, SHA256, tmp_path / "file", attempts=3, wait=0)
    assert len(server.ranges) == tries


def make_zip(path, name, data=b"x", mode=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.txt", "good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        file.writestr(info, data)
    return path


def make_tar(path, name, kind=tarfile.REGTYPE, target=""):
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
        file.addfile(info, io.BytesIO(b"data"))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpack(tmp_path, make):
    unpack(make(tmp_path / "archive", "ESC/audio/1.wav"), tmp_path / "data")
    assert (tmp_path / "data/ESC/audio/1.wav").read_bytes() in (b"x", b"data")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_nothing_is_written_outside_the_folder(tmp_path, make, name):
    folder = tmp_path / "a/b/data"
    with suppress(FetchError):  # refused, or written inside
        unpack(make(tmp_path / "archive", name), folder)
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(folder)}
    assert outside == {tmp_path / "archive"} and not Path("/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "good.txt"])
def test_links_and_devices_in_a_tar(tmp_path, kind, target):
    with pytest.raises(FetchError, match="archive: .* is a link or a device"):
        unpack(make_tar(tmp_path / "archive", "link", kind, target), tmp_path / "data")


def test_a_link_in_a_zip_is_a_plain_file(tmp_path):
    unpack(make_zip(tmp_path / "archive", "link", b"/etc/passwd", 0o120777), tmp_path / "data")
    assert not (tmp_path / "data/link").is_symlink() and (tmp_path / "data/link").read_bytes() == b"/etc/passwd"


def test_damaged_archives(tmp_path):
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(FetchError, match="neither a zip nor a tar"):
        unpack(tmp_path / "text", tmp_path / "data")
    path = make_zip(tmp_path / "archive", "file", b"data")
    path.write_bytes(path.read_bytes().replace(b"data", b"dama", 1))
    with pytest.raises(FetchError, match="cannot be unpacked .*CRC.*check the archive"):
        unpack(path, tmp_path / "data")


def test_a_corpus_whose_root_is_absent_is_fetched(server, tmp_path):
    source = esc50(tmp_path / "source" / "ESC-50-master")
    with tarfile.open(tmp_path / "esc50.tar.gz", "w:gz") as file:
        file.add(source, "top/ESC-50-master")
    server.content = (tmp_path / "esc50.tar.gz").read_bytes()
    archive = Archive(url=f"{server.url}/esc50.tar.gz?download=1", sha256=hashlib.sha256(server.content).hexdigest())
    root = tmp_path / "raw" / "ESC-50-master"
    settings = corpus("esc50", root, archive=archive, classes=["dog", "rain"])
    for _ in range(2):  # the second time it is there: nothing is asked of the server
        assert len(prepare("test", settings, tmp_path / "clips")) == 4
        assert {path.name for path in root.parent.iterdir()} == {"esc50.tar.gz", "esc50.tar.gz.lock", "ESC-50-master"}
        assert server.ranges == [None]
    with pytest.raises(FetchError, match="holds top, no folder ESC-50; correct the last part of root"):
        provide(archive, tmp_path / "raw" / "ESC-50")

"""Downloads, archives and disks that fail: `fetch` has one error of its own for all of it, and no half of a corpus stays."""

import errno
import hashlib
import io
import resource
import socket
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback_files import serving
from made_corpora import corpus, noise
from pyarrow import parquet

from foleylib.audio.io import AudioError
from foleylib.corpora import fetch as fetching
from foleylib.corpora.fetch import fetch, provide
from foleylib.corpora.prepare import prepare
from foleylib.corpora.unpack import FetchError
from foleylib.datasets.manifest import CorpusError
from foleylib.params.corpora import Archive

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@contextmanager
def answering(monkeypatch, answer):
    """URL of a server that gives every request the same bytes and hangs up; None says nothing at all."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                if answer is not None:
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.close()

        kept, thread = [], threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/file.zip"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


@contextmanager
def files_of_at_most(size):
    """The process can write no longer file: what the disk says is as if it were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def said(status, *lines, body=b""):
    """An answer, which says that the server hangs up: else a client may send its next request on that connection."""
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode() + body


ANSWERS = [
    *[
        pytest.param(said(f"{status} No", "Content-Length: 0"), f"answered {status} No|failed 2 times", id=str(status))
        for status in (400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503, 504)
    ],
    pytest.param(None, "failed 2 times .*timed out", id="silent"),
    pytest.param(b"", "failed 2 times", id="hangs up"),
    pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "failed 2 times", id="no HTTP"),
    pytest.param(said("200 OK", "Content-Length: 999999", body=CONTENT), "failed 2 times", id="truncated"),
    pytest.param(said("200 OK", "Content-Length: many", body=CONTENT[:9]), "SHA-256 is|failed 2 times", id="length no number"),
    pytest.param(said("200 OK", "Content-Length: 9", body=CONTENT[:9]), "SHA-256 is", id="other bytes"),
    pytest.param(said("200 OK", "Content-Encoding: gzip", body=b"no gzip"), "failed 2 times", id="encoding"),
    pytest.param(said("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n"), "failed 2 times", id="chunks"),
    pytest.param(said("302 Found", "Location: /file.zip", "Content-Length: 0"), "answered 302|redirects", id="circle"),
    pytest.param(said("302 Found", "Location: file:///etc/passwd", "Content-Length: 0"), "failed 2 times", id="to a file"),
    pytest.param(said("302 Found", "Location: http://[", "Content-Length: 0"), "failed 2 times", id="to no URL"),
]  # fmt: skip


@pytest.mark.parametrize("answer, message", ANSWERS)
def test_what_a_server_may_say(tmp_path, monkeypatch, answer, message):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    with answering(monkeypatch, answer) as url, pytest.raises(FetchError, match=message) as raised:
        fetch(url, SHA256, tmp_path / "file.zip", attempts=2, wait=0)
    assert url in str(raised.value) and not (tmp_path / "file.zip").exists()


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, "Name or service not known"), ConnectionRefusedError(111, "Connection refused"),
     OSError(101, "Network is unreachable"), TimeoutError("timed out")],
    ids=["no such host", "refused", "no network", "time out"],
)  # fmt: skip
def test_no_connection(tmp_path, monkeypatch, error):
    def none(*_, **__):
        raise error

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", none)
    with pytest.raises(FetchError, match="http://sounds.example/a.zip: failed 2 times"):
        fetch("http://sounds.example/a.zip", SHA256, tmp_path / "a.zip", attempts=2, wait=0)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://.x/a.zip", "http://x:port/a.zip", "ftp://x/a.zip", "a"]
)
def test_what_is_no_url(tmp_path, monkeypatch, url):
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(FetchError, match="failed 1 times"):
        fetch(url, SHA256, tmp_path / "a.zip", attempts=1, wait=0)


def zipped(names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"sound")
    return content.getvalue()


def linked():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        link = tarfile.TarInfo("raw/a.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return content.getvalue()


ARCHIVES = [
    pytest.param(b"", "answered 416", id="empty"),
    pytest.param(b"<html>sign in</html>", "neither a zip nor a tar", id="a page"),
    pytest.param(zipped(["raw/a.wav"])[:-9], "neither a zip nor a tar|cannot be unpacked", id="cut"),
    pytest.param(zipped(["raw/a.wav"]).replace(b"sound", b"soun!"), "cannot be unpacked", id="another content"),
    pytest.param(zipped(["raw/a.wav", "../b.wav"]), "leads out of the folder", id="above"),
    pytest.param(zipped(["raw/a.wav", "/etc/b.wav"]), "leads out of the folder", id="absolute"),
    pytest.param(linked(), "is a link or a device", id="link"),
    pytest.param(zipped(["other/a.wav"]), "no folder raw", id="another folder"),
    pytest.param(zipped(["raw/" + "x" * 300 + ".wav"]), "cannot be unpacked", id="name too long"),
    pytest.param(zipped([]), "no folder raw|holds", id="nothing in it"),
]  # fmt: skip


@pytest.mark.parametrize("content, message", ARCHIVES)
def test_archives(tmp_path, monkeypatch, content, message):
    with serving(monkeypatch, content) as server:
        archive = Archive(url=f"{server.url}/a.zip", sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(FetchError, match=message):
            provide([archive], tmp_path / "raw")
    assert not {path.name for path in tmp_path.iterdir()} - {"a.zip", "a.zip.lock", ".raw.lock"}


def test_a_full_disk_in_a_download(tmp_path, monkeypatch):
    with (
        serving(monkeypatch, CONTENT) as server,
        pytest.raises(FetchError, match="/file, to .*a.zip: .*File too large.*make room"),
        files_of_at_most(100_000),
    ):
        fetch(f"{server.url}/file", SHA256, tmp_path / "a.zip", attempts=1)
    assert not (tmp_path / "a.zip").exists()
    with serving(monkeypatch, CONTENT) as server:
        fetch(f"{server.url}/file", SHA256, tmp_path / "a.zip")
        assert server.ranges[0].startswith("bytes=")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["file/a.zip", "file/more/a.zip"])
def test_a_file_where_the_folder_should_be(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")
    with serving(monkeypatch, CONTENT) as server, pytest.raises(FetchError, match="file.*give another place"):
        fetch(f"{server.url}/file", SHA256, tmp_path / place, attempts=1)
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_in_unpacking(tmp_path, monkeypatch):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("raw/a.wav", CONTENT)
    content = content.getvalue()
    message = "a.zip: cannot be unpacked .*File too large"
    with serving(monkeypatch, content) as server, pytest.raises(FetchError, match=message), files_of_at_most(100_000):
        provide([Archive(url=f"{server.url}/a.zip", sha256=hashlib.sha256(content).hexdigest())], tmp_path / "raw")
    assert not (tmp_path / "raw").exists() and not (tmp_path / ".raw.unpacking").exists()


def test_a_full_disk_among_the_clips(tmp_path):
    for i in range(5):
        noise(tmp_path / "in/rain" / f"{i}.wav")
    settings = corpus("folder", tmp_path / "in", split_fractions=None)
    with (
        files_of_at_most(10_000),
        pytest.raises(AudioError, match="wav: cannot be written .File too large.; make room"),
    ):
        prepare("own", settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / ".out.part").rglob("*") if path.is_file()]
    prepare("own", settings, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_full_disk_at_the_tables_of_a_corpus(tmp_path, monkeypatch):
    def full(_, file):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(CorpusError, match="out: cannot be written .*No space left.*make room"),
    ):
        patch.setattr(parquet, "write_table", full)
        prepare("own", corpus("synthetic"), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list((tmp_path / ".out.part/rows").iterdir())
    prepare("own", corpus("synthetic"), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_what_a_killed_stage_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / ".out.part"
    for path in (
        "corpus/audio/00007/a.wav",
        "corpus/manifest.parquet",
        "rows/00007-key.parquet",
        "replaced/a",
        "rows/partial",
    ):
        (left / path).parent.mkdir(parents=True, exist_ok=True)
        (left / path).write_text("of a killed run with other settings")
    prepare("own", corpus("synthetic"), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audio", "manifest.parquet", "captions.parquet"}
    assert {path.name for path in (tmp_path / "out/audio").iterdir()} == {"00000"}


def test_the_folder_of_a_killed_unpacking_is_removed_where_the_root_has_its_name(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / ".raw.unpacking/whole").mkdir(parents=True)
    provide([Archive(url="http://x.example/a.zip", sha256=SHA256)], tmp_path / "raw")
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}

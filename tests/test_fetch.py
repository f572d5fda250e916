"""Downloads from a loopback server: broken, resumed, wrong."""

import hashlib
from types import SimpleNamespace

import pytest
from loopback_files import serving

from foleylib.corpora import unpack
from foleylib.corpora.fetch import CHUNK, FetchError, fetch

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch, CONTENT) as server:
        yield server


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


def test_other_bytes_than_asked_for_are_not_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(FetchError, match="failed 2 times .asked for bytes from 1000, got bytes 1001-"):
        fetch(f"{server.url}/shifted", SHA256, tmp_path / "file", attempts=2, wait=0)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]


def test_a_server_that_does_not_say_how_long_a_file_is(server, tmp_path):
    fetch(f"{server.url}/silent", SHA256, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_publishers_md5_is_a_checksum_too(server, tmp_path):
    fetch(f"{server.url}/file", None, tmp_path / "file", md5=hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(FetchError, match="file: MD5 is .* expected 0{32}"):
        fetch(f"{server.url}/file", SHA256, tmp_path / "file", md5="0" * 32)


def test_without_a_checksum_the_actual_one_is_told_and_nothing_fetched_again(server, tmp_path):
    for _ in range(2):
        with pytest.raises(FetchError, match=f"nothing to compare it with; .* set its `sha256` to {SHA256}"):
            fetch(f"{server.url}/file", None, tmp_path / "file")
    fetch(f"{server.url}/file", SHA256, tmp_path / "file")
    assert server.ranges == [None, f"bytes={len(CONTENT)}-", f"bytes={len(CONTENT)}-"]  # asks whether there is more


def test_another_size_than_the_settings_say(server, tmp_path):
    with pytest.raises(FetchError, match=f"has {len(CONTENT)} bytes, `size` says 7; correct"):
        fetch(f"{server.url}/file", SHA256, tmp_path / "file", size=7)


def test_room_for_what_is_to_come(server, tmp_path, monkeypatch):
    (tmp_path / "file.part").write_bytes(CONTENT[:-1001])
    monkeypatch.setattr(unpack, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match="what is to come needs 1.0 kB, but the disk of .* has 1.0 kB free"):
        fetch(f"{server.url}/file", SHA256, tmp_path / "file")
    monkeypatch.setattr(unpack, "disk_usage", lambda _: SimpleNamespace(free=1001))
    fetch(f"{server.url}/file", SHA256, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT

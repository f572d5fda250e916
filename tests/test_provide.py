"""Corpora of every layout that come as archives from a loopback server: room, several archives, kills."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import made_corpora
import pytest
from loopback_files import serving
from made_corpora import corpus

from foleylib.corpora import unpack
from foleylib.corpora.fetch import FetchError, provide
from foleylib.corpora.prepare import prepare
from foleylib.params.corpora import Archive


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        yield server


def served(server, name, folder, below="", form="gztar"):
    """An archive of a folder on the server: its settings."""
    path = folder.parent / f"packed-{name}"
    base = folder if not below else folder.parent
    file = shutil.make_archive(str(path), form, base, None if not below else below)
    data = Path(file).read_bytes()
    server.files[f"/{name}"] = data
    return Archive(url=f"{server.url}/{name}", sha256=hashlib.sha256(data).hexdigest())


def esc50(server, tmp_path):
    """An ESC-50 whose root is absent, and the archive that has it below a top folder."""
    made_corpora.esc50(tmp_path / "source/top/ESC-50-master")
    (tmp_path / "source/top/ESC-50-master/more").write_bytes(os.urandom(1 << 19) + bytes(1 << 22))
    archive = served(server, "esc50.tar.gz", tmp_path / "source/top", "top")
    return archive, tmp_path / "raw/ESC-50-master"


def names(folder):
    return {path.name for path in folder.iterdir()}


HAD = {"esc50.tar.gz", "esc50.tar.gz.lock", ".ESC-50-master.lock"}


def test_a_corpus_whose_root_is_absent_is_fetched(server, tmp_path):
    archive, root = esc50(server, tmp_path)
    archive = archive.changed(url=f"{archive.url}?download=1")
    settings = corpus("esc50", root, archive=archive, classes=["dog", "rain"])
    for _ in range(2):  # the second time it is there: nothing is asked of the server
        assert len(prepare("test", settings, tmp_path / "clips")) == 4
        assert names(root.parent) == HAD | {"ESC-50-master"}
        assert server.ranges == [None]
    with pytest.raises(FetchError, match="holds top, no folder ESC-50; correct the last part of root"):
        provide([archive], tmp_path / "raw" / "ESC-50")


@pytest.mark.parametrize("form", ["zip", "gztar", "tar"])
@pytest.mark.parametrize(
    "kind, made",
    [("esc50", 4), ("urbansound8k", 4), ("dcase2023t7", 7), ("audiocaps", 5), ("wavcaps", 6), ("audioset", 5)],
)
def test_an_archive_of_every_layout(server, tmp_path, kind, made, form):
    make = {"dcase2023t7": lambda root: made_corpora.dcase(root, 1)}.get(kind) or getattr(made_corpora, kind)
    archive = served(server, "archive", make(tmp_path / "source/data"), "data", form)
    shares = {"dcase2023t7": {"train": 0.5, "val": 0.5}, "esc50": None, "urbansound8k": None}.get(kind, {"train": 1.0})
    settings = corpus(kind, tmp_path / "raw/data", archive=archive, split_fractions=shares, classes=None)
    assert len(prepare(kind, settings, tmp_path / "clips")) == made


def test_two_archives_of_dcase(server, tmp_path):
    """Development and evaluation set, each with folders of its own about the classes."""
    dev, eval = (made_corpora.dcase(tmp_path / f"source/{part}", 2) for part in ("dev", "eval"))
    archives = [served(server, "dev.zip", dev, "dev", "zip"), served(server, "eval.tar.gz", eval)]
    archives = [archive.changed(into=part) for archive, part in zip(archives, ("dev", "eval"))]
    shares = {"train": 0.5, "val": 0.5}
    settings = corpus("dcase2023t7", tmp_path / "raw/dcase", archive=archives, split_fractions=shares)
    assert (prepare("dcase", settings, tmp_path / "clips").split == "test").sum() == 14
    assert names(tmp_path / "raw/dcase") == {"dev", "eval"}


def test_parts_of_wavcaps(server, tmp_path):
    """A zip a source, with the publisher's folders about the sounds, and the tables."""
    source = made_corpora.wavcaps(tmp_path / "source", "{source}/mnt/fast/{source}_flac")
    parts = {name: name for name in made_corpora.WAVCAPS} | {"json_files": "json_files"}
    archives = [served(server, f"{n}.zip", source / n, form="zip").changed(into=into) for n, into in parts.items()]
    settings = corpus("wavcaps", tmp_path / "raw/wavcaps", archive=archives, split_fractions={"train": 1.0})
    assert len(prepare("wavcaps", settings, tmp_path / "clips")) == 6
    assert (tmp_path / "raw/wavcaps/SoundBible/2219.flac").is_file()


def test_archives_that_hold_the_same(server, tmp_path):
    source = made_corpora.dcase(tmp_path / "source", 1)
    archives = [served(server, name, source).changed(into="dev") for name in ("a", "b")]
    with pytest.raises(FetchError, match="b holds .*, and so does another archive; give them different `into`"):
        provide(archives, tmp_path / "raw/dcase")
    assert names(tmp_path / "raw") == {"a", "b", "a.lock", "b.lock", ".dcase.lock"}
    with pytest.raises(FetchError, match="two are called a; fetch one yourself"):
        provide([archives[0], archives[0].changed(into="eval")], tmp_path / "raw/dcase")
    with pytest.raises(FetchError, match="it is called a, as root .*raw2/a is; give `root` another last part"):
        provide(archives[:1], tmp_path / "raw2/a")


def room(monkeypatch, free):
    monkeypatch.setattr(unpack, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_room_is_looked_for_first(server, tmp_path, monkeypatch):
    archive, root = esc50(server, tmp_path)
    size = len(server.files["/esc50.tar.gz"])
    room(monkeypatch, 2 * size - 1)
    with pytest.raises(FetchError, match="the download and, unpacked, at least as much again needs .* free; make room"):
        provide([archive], root)
    assert server.ranges == [] and names(root.parent) == {".ESC-50-master.lock"}
    room(monkeypatch, 2 * size)  # enough to fetch it, not for what it turns out to hold
    with pytest.raises(FetchError, match="unpacked, its 1 archives' content needs"):
        provide([archive], root)
    assert server.ranges == [None] and names(root.parent) == HAD
    monkeypatch.undo()
    provide([archive], root)
    assert server.ranges == [None] and root.is_dir()


def test_a_size_in_the_settings_tells_where_the_server_does_not(server, tmp_path, monkeypatch):
    room(monkeypatch, 1000)
    silent = Archive(url=f"{server.url}/silent", sha256="0" * 64, size=1_300_000)
    with pytest.raises(FetchError, match="needs 2.6 MB, but the disk of .* has 1.0 kB free"):
        provide([silent], tmp_path / "raw/corpus")
    assert server.ranges == []


def killed(code, archive, root):
    """Start another process that provides a corpus, after some code; returns it."""
    start = "import os, sys; from pathlib import Path; from foleylib.corpora import fetch; "
    start += "from foleylib.params.corpora import Archive; " + code
    start += "; fetch.provide([Archive.model_validate_json(sys.argv[1])], Path(sys.argv[2]))"
    return subprocess.Popen([sys.executable, "-c", start, archive.model_dump_json(), str(root)], stderr=subprocess.PIPE)


def test_killed_between_unpacking_and_the_name(server, tmp_path):
    archive, root = esc50(server, tmp_path)
    child = killed("fetch._settle = lambda folder, root: os.kill(os.getpid(), 9)", archive, root)
    assert child.wait(60) == -9, child.stderr.read()
    assert names(root.parent) == HAD | {".ESC-50-master.unpacking"}  # all is there, but no corpus of this name
    provide([archive], root)
    assert names(root.parent) == HAD | {"ESC-50-master"} and names(root) == {"meta", "audio", "more"}
    assert server.ranges == [None]


def test_killed_in_the_download(server, tmp_path):
    archive, root = esc50(server, tmp_path)
    server.files["/slow"] = server.files["/esc50.tar.gz"]
    archive = archive.changed(url=f"{server.url}/slow")
    child, part = killed("pass", archive, root), root.parent / "slow.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait(60)
    size = part.stat().st_size
    assert 0 < size < len(server.files["/slow"]) and not root.exists()
    provide([archive], root)
    assert server.ranges == [None, f"bytes={size}-"] and names(root) == {"meta", "audio", "more"}

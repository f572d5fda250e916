"""Archives that must not be trusted: what is refused, and that nothing of them is written."""

import io
import os
import struct
import tarfile
import zipfile

import pytest

from foleylib.corpora import unpack as module
from foleylib.corpora.unpack import FetchError, inspect, unpack


def make_zip(path, name, data=b"x", mode=0, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.txt", "good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        file.writestr(info, data, compression)
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


def refused(archive, folder, message):
    """An archive that is refused, by a message, before anything is written."""
    before = {path for path in folder.parent.rglob("*")}
    with pytest.raises(FetchError, match=message):
        unpack(archive, folder)
    assert {path for path in folder.parent.rglob("*")} == before


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "..\\evil", "a\\evil", "C:/evil", "C:evil", "//host/evil"]
)
def test_names_that_lead_outside(tmp_path, make, name):
    refused(make(tmp_path / "archive", name), tmp_path / "data", "archive: member .* leads out of the folder")


def test_a_name_that_ends_at_a_nul_for_some(tmp_path):
    path = make_zip(tmp_path / "archive", "good.wav~/../../evil")
    path.write_bytes(path.read_bytes().replace(b"good.wav~", b"good.wav\0"))
    refused(path, tmp_path / "data", "leads out of the folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "good.txt", "../../outside"])
def test_links_and_devices_in_a_tar(tmp_path, kind, target):
    refused(make_tar(tmp_path / "archive", "link", kind, target), tmp_path / "data", "'link' is a link or a device")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666])
def test_links_and_devices_in_a_zip(tmp_path, mode):
    refused(make_zip(tmp_path / "archive", "link", b"/etc", mode), tmp_path / "data", "'link' is a link or a device")


def test_modes_of_plain_files_and_folders_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as file:
        for name, mode in (("sub/", 0o040755), ("sub/a.wav", 0o100644), ("sub/b.wav", 0o644)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, b"" if name.endswith("/") else b"x")
    unpack(tmp_path / "archive", tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data/sub").iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a/x.wav", "a//x.wav", "./a/x.wav"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_two_files_of_one_name(tmp_path, form, second):
    path = tmp_path / "archive"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a/x.wav", "one")
            file.writestr(second, "two")
    else:
        with tarfile.open(path, "w") as file:
            file.addfile(tarfile.TarInfo("a/x.wav"))
            file.addfile(tarfile.TarInfo(second))
    refused(path, tmp_path / "data", "holds a/x.wav more than once")


def test_names_that_differ_in_case_are_two_files(tmp_path):
    """Ids of YouTube do."""
    with zipfile.ZipFile(tmp_path / "archive", "w") as file:
        file.writestr("audio/YabCd.wav", "one")
        file.writestr("audio/YABcd.wav", "two")
    unpack(tmp_path / "archive", tmp_path / "data")
    assert len(list((tmp_path / "data/audio").iterdir())) == 2


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_bombs(tmp_path, form, monkeypatch):
    monkeypatch.setattr(module, "BOMB_BYTES", 1 << 20)
    path, zeros = tmp_path / "archive", bytes(1 << 22)
    if form == "zip":
        make_zip(path, "zeros.wav", zeros, compression=zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(path, "w:gz") as file:
            info = tarfile.TarInfo("zeros.wav")
            info.size = len(zeros)
            file.addfile(info, io.BytesIO(zeros))
    refused(path, tmp_path / "data", r"unpacks \d.* to 4.2 MB, as no recordings do; do not trust it")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("declared", [0, 10, 1 << 20])
def test_a_zip_that_lies_about_a_size(tmp_path, declared, compression):
    """Of a member that holds more or less than it says, no more than that is ever written, and then it is refused."""
    path = make_zip(tmp_path / "archive", "zeros.wav", bytes(1 << 16), compression=compression)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # of the last member in the table at the end
    content[at + 24 : at + 28] = struct.pack("<I", declared)
    path.write_bytes(content)
    assert inspect(path) == len("good") + declared
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(path, tmp_path / "data")
    written = sum(file.stat().st_size for file in (tmp_path / "data").rglob("*") if file.is_file())
    assert written <= len("good") + declared


def test_too_little_room(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "archive", "a.wav", os.urandom(5000))
    monkeypatch.setattr(module, "disk_usage", lambda _: type("Usage", (), {"free": 4000}))
    refused(
        path, tmp_path / "data", "archive: unpacked, it needs 5.0 kB, but the disk of .* has 4.0 kB free; make room"
    )


@pytest.mark.parametrize("part", ["first", "last"])
def test_a_part_of_a_split_zip(tmp_path, part):
    path = make_zip(tmp_path / "AudioSet_SL.zip", "a.flac", os.urandom(5000))
    content = bytearray(path.read_bytes())
    if part == "first":
        content = b"PK\x07\x08" + content[:3000]
    else:
        at = content.rindex(b"PK\x05\x06")
        content[at + 4 : at + 8] = struct.pack("<HH", 3, 3)  # numbers of this part and of that where the table begins
    path.write_bytes(content)
    refused(path, tmp_path / "data", r"one part of a split zip; join all parts first \(zip -s 0 AudioSet_SL.zip --out")


def test_a_password(tmp_path):
    path = make_zip(tmp_path / "archive", "a.wav")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, tmp_path / "data", "a.wav has a password")


def test_a_file_where_a_folder_is_wanted(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as file:
        file.writestr("a", "file")
        file.writestr("a/b.wav", "in it")
    with pytest.raises(FetchError, match="archive: cannot be unpacked"):
        unpack(tmp_path / "archive", tmp_path / "data")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_ends_too_early(tmp_path, mode):
    with tarfile.open(tmp_path / "archive", mode) as file:
        info = tarfile.TarInfo("a.wav")
        info.size = 50000
        file.addfile(info, io.BytesIO(os.urandom(50000)))
    content = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(content[:30000])
    with pytest.raises(FetchError, match="archive: cannot be unpacked"):
        unpack(tmp_path / "archive", tmp_path / "data")


def test_damaged_archives(tmp_path):
    (tmp_path / "text").write_text("no archive")
    refused(tmp_path / "text", tmp_path / "data", "neither a zip nor a tar")
    path = make_zip(tmp_path / "archive", "file", b"data")
    path.write_bytes(path.read_bytes().replace(b"data", b"dama", 1))
    with pytest.raises(FetchError, match="cannot be unpacked .*CRC.*check the archive"):
        unpack(path, tmp_path / "data")

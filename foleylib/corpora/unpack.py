"""Archives that strangers made: what one holds is checked before a byte of it is written."""

import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from shutil import disk_usage

BOMB_RATIO = 100  # no recordings shrink to a hundredth
BOMB_BYTES = 1 << 26  # what is unpacked to less cannot harm
END_OF_ZIP = b"PK\x05\x06"
FIRST_OF_SPLIT_ZIP = b"PK\x07\x08"
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # zipfile's of an unknown compression (NotImplementedError) and of a password
    ValueError,
    LookupError,  # zipfile's of a member without a name
    struct.error,
)


class FetchError(ValueError):
    """A download or archive that cannot be used; the message names it, what is wrong and the remedy."""


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its members: name, bytes when unpacked, "file", "folder" or "other"."""

    name: str
    size: int
    kind: str


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a folder, which is made; nothing is written if `inspect` refuses it."""
    check_room(folder, inspect(archive), f"{archive}: unpacked, it")
    extract(archive, folder)


def inspect(archive: Path) -> int:
    """Bytes that a zip or tar archive takes unpacked; a FetchError if it is not to be trusted.

    Refused are names that lead out of a folder (absolute, with a drive, a backslash or ".."), links, devices, two
    files of one name, passwords, parts of a split zip, and what grows a hundredfold (a bomb).
    """
    members = _reading(archive, _members)
    _check_names(archive, members)
    size, packed = sum(member.size for member in members), archive.stat().st_size
    if size > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise FetchError(
            f"{archive}: unpacks {shown(packed)} to {shown(size)}, as no recordings do; do not trust it, compare the "
            "checksum with the publisher's"
        )
    return size


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive that `inspect` let through; a member that is not what it said is an error."""
    _reading(archive, lambda path: _extract(path, folder))


def check_room(folder: Path, need: int, what: str) -> None:
    """Refuse to begin what needs more than the free bytes of the disk that holds (or will hold) `folder`."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = disk_usage(place).free
    if need > free:
        raise FetchError(
            f"{what} needs {shown(need)}, but the disk of {place} has {shown(free)} free; make room there, or give the "
            "corpus a `root` on another disk"
        )


def shown(size: int) -> str:
    """A number of bytes for a reader: "812 bytes", "6.0 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _reading(archive: Path, act):
    if _split(archive):
        joined = f"{archive.stem}-joined.zip"
        raise FetchError(
            f"{archive}: one part of a split zip; join all parts first (zip -s 0 {archive.stem}.zip --out {joined}), "
            "unpack that, and point `root` at the folder"
        )
    try:
        return act(archive)
    except FetchError:
        raise
    except BROKEN as error:
        raise FetchError(
            f"{archive}: cannot be unpacked ({error}); check the archive and the room on the disk"
        ) from error


def _split(archive: Path) -> bool:
    """Whether a file is the first or the last part of a zip in several: the others look like anything."""
    with open(archive, "rb") as file:
        if file.read(4) == FIRST_OF_SPLIT_ZIP:
            return True
        file.seek(max(0, archive.stat().st_size - (1 << 16) - 22))  # the record ends with a comment of up to 2^16
        tail = file.read()
    at = tail.rfind(END_OF_ZIP)
    number = tail[at + 4 : at + 6] if at >= 0 else b""
    return number not in (b"", b"\0\0", b"\xff\xff") and zipfile.is_zipfile(archive)  # ffff: see its zip64 record


def _members(archive: Path) -> list[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            if locked := [info.filename for info in file.infolist() if info.flag_bits & 1]:
                raise FetchError(f"{archive}: {locked[0]} has a password; unpack it yourself and give the folder")
            return [_of_zip(info) for info in file.infolist()]
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as file:
            return [_of_tar(info) for info in file]
    raise FetchError(f"{archive}: neither a zip nor a tar archive; check what was fetched")


def _of_zip(info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the maker knows no such thing
    plain = "folder" if info.is_dir() else "file"
    name = info.orig_filename  # zipfile cuts `filename` at a NUL
    return Member(name, info.file_size, plain if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "other")


def _of_tar(info: tarfile.TarInfo) -> Member:
    return Member(info.name, info.size, "file" if info.isfile() else "folder" if info.isdir() else "other")


def _check_names(archive: Path, members: list[Member]) -> None:
    strange = [member.name for member in members if member.kind == "other"]
    if strange:
        raise FetchError(f"{archive}: member {strange[0]!r} is a link or a device, do not trust it")
    outside = [member.name for member in members if not _inside(member.name)]
    if outside:
        raise FetchError(f"{archive}: member {outside[0]!r} leads out of the folder it is unpacked to; do not trust it")
    files = Counter(PureWindowsPath(member.name).parts for member in members if member.kind == "file")
    twice = ["/".join(parts) for parts, count in files.items() if count > 1]
    if twice:
        raise FetchError(f"{archive}: holds {twice[0]} more than once; it cannot tell which is meant, do not trust it")


def _inside(name: str) -> bool:
    path = PureWindowsPath(name)  # knows all that may lead away: drives, roots and both slashes
    return not (path.drive or path.root or ".." in path.parts or "\\" in name or "\0" in name)


def _extract(archive: Path, folder: Path) -> None:
    """Members become plain files and folders, of as many bytes as `inspect` has counted: the libraries write no more."""
    folder.mkdir(parents=True, exist_ok=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                path = Path(file.extract(info, folder))
                if path.is_file() and path.stat().st_size != info.file_size:
                    raise zipfile.BadZipFile(f"{info.filename} is not as long as it says")
    else:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")

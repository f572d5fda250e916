"""Archives from the network: resumable download, SHA-256 check, unpacking that stays inside its folder."""

import os
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import requests
from filelock import FileLock

from foleylib.params.corpora import Archive
from foleylib.runtime import progress, weights_sha256

CHUNK = 1 << 16  # what a broken connection loses at most
TIMEOUT = 60.0  # longest silence of a server, in s


class FetchError(ValueError):
    """A download or archive that cannot be used; the message names it, what is wrong and the remedy."""


def provide(archive: Archive, root: Path) -> None:
    """Make the folder `root` of a corpus from its archive, if it is not there yet.

    The archive is kept beside `root`; the folder of that name in it, wherever it lies, becomes `root` once all of it is
    unpacked.
    """
    if root.exists():
        return
    file = root.with_name(archive.url.split("?")[0].rstrip("/").split("/")[-1])
    fetch(archive.url, archive.sha256, file)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        unpack(file, Path(scratch))
        folders = sorted(path for path in Path(scratch).rglob(root.name) if path.is_dir())
        if not folders:
            held = ", ".join(sorted(os.listdir(scratch)))
            raise FetchError(f"{file} holds {held}, no folder {root.name}; correct the last part of root {root}")
        folders[0].rename(root)


def fetch(url: str, sha256: str, dest: Path, *, attempts: int = 5, wait: float = 2.0) -> None:
    """Download a file, resuming what an earlier run left in `dest`.part; one that is there is only checked.

    A failing connection gets `attempts` tries, with a pause of `wait` s that doubles each time.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{dest}.lock"):
        file = dest
        if not dest.is_file():
            file = dest.with_name(dest.name + ".part")
            _download(url, file, attempts, wait)
        actual = weights_sha256(file)
        if actual != sha256.lower():
            remedy = "remove the file to fetch it again, or correct the hash"
            raise FetchError(f"{file}: SHA-256 is {actual}, expected {sha256} of {url}; {remedy}")
        file.rename(dest)


def _download(url: str, part: Path, attempts: int, wait: float) -> None:
    for attempt in range(attempts):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            _append(url, part)
            return
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", 500)  # without an answer the connection failed
            if status < 500 and status != 429:
                raise FetchError(f"{url}: the server answered {status} {error.response.reason}; check it") from error
            last = error
    raise FetchError(f"{url}: failed {attempts} times ({last}); what came is kept in {part}, run again to resume")


def _append(url: str, part: Path) -> None:
    size = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing after what we have: complete or stale, the hash tells
            return
        response.raise_for_status()
        if response.status_code != 206:  # the server sends all of it again
            size = 0
        total = size + int(response.headers.get("Content-Length", 0)) or None
        bar = progress(desc=part.stem, total=total, initial=size, unit="B", unit_scale=True)
        with bar, open(part, "ab" if size else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a folder: nothing outside of it, no links, no devices."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)  # drops "..", drives and roots of paths, writes links as plain files
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                file.extractall(folder, filter=_plain)
        else:
            raise FetchError(f"{archive}: neither a zip nor a tar archive; check what was fetched")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise FetchError(
            f"{archive}: cannot be unpacked ({error}); check the archive and the room on the disk"
        ) from error


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    if not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"member {member.name!r} is a link or a device, do not trust it")
    return tarfile.data_filter(member, folder)

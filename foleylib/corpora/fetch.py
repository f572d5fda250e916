"""Archives from the network: room on the disk, resumable download, checksum, and a corpus that is there whole or not.

`requests` with a few lines about it, since pooch has checksums but neither resumes a download nor looks at the disk.
"""

import hashlib
import os
import re
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import requests
from filelock import FileLock

from foleylib.corpora.unpack import FetchError, check_room, extract, inspect
from foleylib.params.corpora import Archive
from foleylib.runtime import progress

CHUNK = 1 << 16  # what a broken connection loses at most
TIMEOUT = 60.0  # longest silence of a server, in s


def provide(archives: list[Archive], root: Path) -> None:
    """Make the folder `root` of a corpus from its archives, if it is not there yet.

    The archives are kept beside `root`. All are fetched, then all are looked at, and only if there is room for all of
    them they are unpacked beside `root`, which takes its name at the end: a process that was killed leaves no `root`.
    An archive with `into` becomes that folder of `root`, without the folders around its files. Of those without,
    the folder of the name of `root`, wherever it lies, becomes `root`.
    """
    root = root.parent if root.suffix == ".csv" else root
    scratch = root.with_name(f".{root.name}.unpacking")
    if root.exists():
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed when `root` had its name
        return
    files = _files(archives, root)
    with _own_errors(f"root {root}"):
        root.parent.mkdir(parents=True, exist_ok=True)
        _provide(archives, files, root, scratch)


def _provide(archives: list[Archive], files: list[Path], root: Path, scratch: Path) -> None:
    with FileLock(root.with_name(f".{root.name}.lock")):
        if root.exists():  # another process has made it
            return
        _check_downloads(archives, files, root)
        for archive, file in zip(archives, files):
            fetch(archive.url, archive.sha256, file, md5=archive.md5, size=archive.size)
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        check_room(root.parent, sum(map(inspect, files)), f"root {root}: unpacked, its {len(files)} archives' content")
        try:
            _settle(_unpacked(archives, files, root, scratch), root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _own_errors(what: str):
    """What the disk or its rights refuse, in a FetchError: no room, a folder that may not be written to, a file in its place."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"{what}: {error.strerror or error} ({error.filename or 'disk'}); make room or give another place, and run "
            "again, which goes on with what is whole"
        ) from error


def _files(archives: list[Archive], root: Path) -> list[Path]:
    """Where the archives are kept: beside `root`, by the last part of their URL."""
    names = [archive.url.split("?")[0].rstrip("/").split("/")[-1] for archive in archives]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FetchError(f"archive: two are called {twice[0]}; fetch one yourself, unpack both and set `root`")
    if root.name in names:
        raise FetchError(f"archive: it is called {root.name}, as root {root} is; give `root` another last part")
    return [root.with_name(name) for name in names]


def _check_downloads(archives: list[Archive], files: list[Path], root: Path) -> None:
    """Refuse to begin without room for what is still to come of all archives and, unpacked, at least as much."""
    need = 0
    for archive, file in zip(archives, files):
        part = file.with_name(file.name + ".part")
        size = file.stat().st_size if file.is_file() else archive.size or _announced(archive.url)
        have = next((path.stat().st_size for path in (file, part) if path.is_file()), 0)
        need += size + max(0, size - have)
    check_room(root.parent, need, f"root {root}: the download and, unpacked, at least as much again")


def _announced(url: str) -> int:
    """Bytes of a file by the server's word; 0 where it says nothing, so that the download itself has to find out."""
    try:
        answer = requests.head(url, allow_redirects=True, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT)
    except (requests.RequestException, ValueError):
        return 0  # the download will say it, with its remedy
    return _length(answer) if answer.ok else 0


def _length(answer: requests.Response) -> int:
    """Bytes that an answer's header promises; 0 where it says nothing or no number."""
    said = answer.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else 0


def _unpacked(archives: list[Archive], files: list[Path], root: Path, scratch: Path) -> Path:
    """The folder below `scratch` that is to be `root`."""
    whole, made = scratch / "whole", scratch / "made"
    for archive, file in zip(archives, files):
        part = scratch / f"{file.name}.content"
        extract(file, part if archive.into else whole)
        if archive.into:
            _move(_kernel(part), made / archive.into, file)
    if whole.is_dir():
        folders = sorted(path for path in whole.rglob(root.name) if path.is_dir())
        if not folders:
            held = ", ".join(sorted(os.listdir(whole)))
            raise FetchError(f"{files[0]} holds {held}, no folder {root.name}; correct the last part of root {root}")
        _move(folders[0], made, files[0])
    return made


def _kernel(folder: Path) -> Path:
    """The innermost folder that holds everything of a folder: an archive's own top folders say nothing."""
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _move(source: Path, target: Path, archive: Path) -> None:
    """Move what is in a folder into another, which may hold things but none of the same name."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if (target / path.name).exists():
            raise FetchError(f"{archive} holds {path.name}, and so does another archive; give them different `into`")
        path.rename(target / path.name)


def _settle(folder: Path, root: Path) -> None:
    """Give the finished folder its name: in one step, so that no half of a corpus is ever called `root`."""
    folder.rename(root)


def fetch(
    url: str,
    sha256: str | None,
    dest: Path,
    *,
    md5: str | None = None,
    size: int | None = None,
    attempts: int = 5,
    wait: float = 2.0,
) -> None:
    """Download a file, resuming what an earlier run left in `dest`.part; one that is there is only checked.

    A failing connection gets `attempts` tries, with a pause of `wait` s that doubles each time. A file without a
    checksum is fetched and then refused, with the SHA-256 that it has.
    """
    with _own_errors(f"{url}, to {dest}"):
        dest.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, sha256, dest, md5, size, attempts, wait)


def _fetch(
    url: str, sha256: str | None, dest: Path, md5: str | None, size: int | None, attempts: int, wait: float
) -> None:
    with FileLock(f"{dest}.lock"):
        file = dest
        if not dest.is_file():
            file = dest.with_name(dest.name + ".part")
            _download(url, file, size, attempts, wait)
        _check(file, url, sha256, md5)
        file.rename(dest)


def _check(file: Path, url: str, sha256: str | None, md5: str | None) -> None:
    for name, title, expected in (("sha256", "SHA-256", sha256), ("md5", "MD5", md5)):
        actual = _digest(file, name) if expected else ""
        if expected and actual != expected.lower():
            remedy = "remove the file to fetch it again, or correct the hash"
            raise FetchError(f"{file}: {title} is {actual}, expected {expected} of {url}; {remedy}")
    if not (sha256 or md5):
        raise FetchError(
            f"{file}: nothing to compare it with; if {url} is to be trusted, set its `sha256` to {_digest(file, 'sha256')}"
        )


def _digest(file: Path, name: str) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, name).hexdigest()


def _download(url: str, part: Path, size: int | None, attempts: int, wait: float) -> None:
    for attempt in range(attempts):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            _append(url, part, size)
            return
        except FetchError:
            raise
        except (requests.RequestException, ValueError) as error:  # the latter of an URL that it is sent on to
            answer = getattr(error, "response", None)
            status = 500 if answer is None else answer.status_code  # without an answer the connection failed
            if status < 500 and status != 429:
                raise FetchError(f"{url}: the server answered {status} {answer.reason}; check it") from error
            last = error
    raise FetchError(f"{url}: failed {attempts} times ({last}); what came is kept in {part}, run again to resume")


def _append(url: str, part: Path, expected: int | None) -> None:
    size = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and size:  # nothing after what we have: complete or stale, the hash tells
            return
        response.raise_for_status()
        if response.status_code != 206:  # the server sends all of it again
            size = 0
        elif not re.match(rf"bytes {size}-", response.headers.get("Content-Range", "")):
            raise requests.ConnectionError(f"asked for bytes from {size}, got {response.headers.get('Content-Range')}")
        coming = _length(response)
        if expected and coming and size + coming != expected:
            raise FetchError(f"{url}: has {size + coming} bytes, `size` says {expected}; correct `size` or the URL")
        check_room(part.parent, coming, f"{url}: what is to come")
        bar = progress(desc=part.stem, total=size + coming or None, initial=size, unit="B", unit_scale=True)
        with bar, open(part, "ab" if size else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))

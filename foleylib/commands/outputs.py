"""Where commands write, looked at before the work is done."""

import os
from pathlib import Path


def check_folder(folder: Path) -> None:
    """A ValueError where nothing can be written into a folder, which may be still to be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise ValueError(f"{there} is no folder: give another place to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there}: nothing may be written there; give another folder, or the right to write")

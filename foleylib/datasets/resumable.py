"""Arrays that are written row by row into a scratch folder, with which a killed run goes on where it stopped."""

import json
import os
import shutil
from pathlib import Path

import numpy as np


class Resumable:
    """A scratch folder with `.npy` files and how far each part of the work is.

    Of another key, what a run left there is of other inputs and is removed. Rows are written with plain file writes, not
    through a memory map: a full disk is then an OSError, and the resident memory does not grow with the file.

    Parameters
    ----------
    folder : made if it is not there.
    key : JSON of all that the contents depend on.
    """

    def __init__(self, folder: Path, key):
        self.folder, self._file, self._arrays = folder, folder / "progress.json", set()
        kept = json.loads(self._file.read_text()) if self._file.is_file() else {}
        key = json.loads(json.dumps(key))
        if kept.get("key") != key:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            kept = {"key": key, "done": {}}
        self._kept = kept

    def done(self, part: str) -> int:
        """How many rows (or batches) of a part of the work are on disk; 0 at first."""
        return self._kept["done"].get(part, 0)

    def write(self, name: str, start: int, values: np.ndarray, total: int) -> None:
        """Write rows `start` and following of the array `name`.npy, which has `total` rows.

        It is created where `start` is 0, and then holds zeros in the rows that are not written.
        """
        path = self.folder / f"{name}.npy"
        values = np.ascontiguousarray(values)
        if start == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.lib.format.open_memmap(path, "w+", values.dtype, (total, *values.shape[1:]))
        held = np.load(path, mmap_mode="r")
        if (held.dtype, held.shape[1:]) != (values.dtype, values.shape[1:]) or start + len(values) > len(held):
            raise ValueError(
                f"{path}: rows {start} to {start + len(values)} of {values.dtype} {values.shape[1:]} do not fit into "
                f"{held.dtype} {held.shape}; remove {self.folder} and start again"
            )
        with path.open("r+b") as file:
            file.seek(held.offset + start * held.strides[0])
            file.write(values.data)
        self._arrays.add(path)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of the array `name`.npy, copied."""
        return np.array(np.load(self.folder / f"{name}.npy", mmap_mode="r")[rows])

    def commit(self, **done: int) -> None:
        """Say that parts of the work are done so far; what was written before is on disk by then."""
        for path in self._arrays:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        self._arrays.clear()
        self._kept["done"] |= done
        partial = self._file.with_suffix(".tmp")
        partial.write_text(json.dumps(self._kept))
        os.replace(partial, self._file)

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

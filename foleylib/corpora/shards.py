"""A corpus that is being prepared: its clips in shards, a folder each, of which finished ones are kept after a kill."""

import math
import os
import shutil
from pathlib import Path

from foleylib.datasets.manifest import COLUMNS
from foleylib.runtime import fingerprint, write_csv

NUMBERS = {"target": "int64", "rate": "int64", "source_rate": "int64"}
NUMBERS |= dict.fromkeys(("seconds", "source_seconds", "source_clipped"), "float64")


class Shards:
    """The scratch folder of a corpus.

    `corpus/` is what becomes the corpus; `rows/<shard>-<key>.parquet` has the rows of a finished shard, whose key changes
    with the settings and its records (and in them the stamps of the source files). What has another key is removed.

    Parameters
    ----------
    folder : of its own; made if it is not there.
    records : of `list_clips`, in the order of the manifest.
    size : clips of a shard.
    settings : fingerprint of what the clips depend on beside their records.
    """

    def __init__(self, folder: Path, records: list[dict], size: int, settings: str):
        self.records, self.size, self.settings = records, size, settings
        self.corpus, self._rows = folder / "corpus", folder / "rows"
        for made in (self.corpus / "audio", self._rows):
            made.mkdir(parents=True, exist_ok=True)
        self._files = [self._file(number) for number in range(len(self))]
        for path in set(self._rows.iterdir()) - {f for f in self._files if self._audio(f.name[:5]).is_dir()}:
            path.unlink()
        for path in (self.corpus / "audio").iterdir():
            if not any(self._rows.glob(f"{path.name}-*")):
                shutil.rmtree(path)

    def __len__(self) -> int:
        return math.ceil(len(self.records) / self.size)

    def of(self, number: int) -> list[dict]:
        """The records of a shard, with the `path` of each clip."""
        start = number * self.size
        return [
            {**record, "path": f"audio/{number:05d}/{record['id']}.wav"}
            for record in self.records[start : start + self.size]
        ]

    def finished(self, number: int) -> bool:
        """Whether the rows of a shard are kept."""
        return self._files[number].is_file()

    def begin(self, number: int) -> list[dict]:
        """Make the empty folder of a shard; returns its records."""
        shutil.rmtree(self._audio(f"{number:05d}"), ignore_errors=True)
        self._audio(f"{number:05d}").mkdir(parents=True)
        return self.of(number)

    def keep(self, number: int, rows: list[dict]) -> None:
        """Keep the rows of a shard, all of whose clips are written."""
        import pyarrow as pa
        from pyarrow import parquet

        partial = self._rows / "partial"
        try:
            parquet.write_table(pa.Table.from_pylist(rows, schema=_schema()), partial)
            os.replace(partial, self._files[number])
        finally:
            partial.unlink(missing_ok=True)

    def problems(self) -> list[dict]:
        """The records of clips that could not be made: id, source_path, problem."""
        return [row for table in self._tables(problem=True) for row in table.to_pylist()]

    def finish(self, left_out: list[dict]) -> set[str]:
        """Write manifest.parquet and captions.parquet, shard by shard, and what was left out; returns the splits."""
        import pandas as pd
        import pyarrow as pa
        from pyarrow import parquet

        schema, splits = _schema(), set()
        said = pa.schema({"id": "string", "number": "int64", "caption": "string"})
        rows = pa.schema([schema.field(name) for name in COLUMNS])
        with (
            parquet.ParquetWriter(self.corpus / "manifest.parquet", rows) as manifest,
            parquet.ParquetWriter(self.corpus / "captions.parquet", said) as captions,
        ):
            for table in self._tables(problem=False):
                manifest.write_table(table.select(COLUMNS))
                pairs = zip(table["id"].to_pylist(), table["captions"].to_pylist())
                each = [{"id": id, "number": i, "caption": one} for id, own in pairs for i, one in enumerate(own)]
                captions.write_table(pa.Table.from_pylist(each, schema=said))
                splits |= set(table["split"].to_pylist())
        (self.corpus / "unusable.csv").unlink(missing_ok=True)
        if left_out:
            table = pd.DataFrame(left_out)[["id", "source_path", "problem"]].rename(columns={"problem": "reason"})
            write_csv(table, self.corpus / "unusable.csv")
        return splits

    def _tables(self, *, problem: bool):
        """The rows of each shard whose clips could not be made, or could."""
        from pyarrow import compute, parquet

        for file in self._files:
            table = parquet.read_table(file)
            valid = compute.is_valid(table["problem"])
            yield table.filter(valid if problem else compute.invert(valid))

    def _file(self, number: int) -> Path:
        return self._rows / f"{number:05d}-{fingerprint(self.settings, self.of(number))}.parquet"

    def _audio(self, shard: str) -> Path:
        return self.corpus / "audio" / shard


def _schema():
    import pyarrow as pa

    schema = pa.schema({name: NUMBERS.get(name, "string") for name in COLUMNS})
    return schema.append(pa.field("captions", pa.list_(pa.string()))).append(pa.field("problem", pa.string()))

"""From a folder of recordings or the embedded sound models to equal clips with a manifest."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foleylib.corpora.clips import look_at, make_clips
from foleylib.corpora.fetch import provide
from foleylib.corpora.left_out import write_left_out
from foleylib.corpora.listing import list_corpus
from foleylib.corpora.shards import Shards
from foleylib.datasets.manifest import CorpusError, load
from foleylib.evaluation.remarks import LISTED
from foleylib.params.corpora import Corpus
from foleylib.runtime import fingerprint, progress

BATCH = 16
SHARD = 1000  # clips of a folder, and clips after which a killed run goes on


def prepare(name: str, settings: Corpus, out: str | Path):
    """Write a corpus: `out/audio/<shard>/<id>.wav` (16-bit mono, all of one length), `out/manifest.parquet` with a row a
    clip, and `out/captions.parquet` with a row a caption.

    The headers of all source files are read first. If more than `settings.unusable` of them cannot be used, all of these
    are named before anything is written; what only decoding finds is named after it. Those that are allowed are left
    out and listed in `out/unusable.csv`.

    Clips are written into a folder beside `out`, `.<name of out>.part`, which is renamed at the end: until then `out`
    stays as it was. A killed or refused run leaves that folder; the next one keeps its finished shards of `SHARD` clips
    whose settings, rows and source files are the same, and removes it. Rows and bytes are the same after a kill and
    whatever `settings.jobs` is; memory grows with the listing alone. Work goes through joblib, whose backend
    `joblib.parallel_config` sets.

    Parameters
    ----------
    name : str
        shown in progress and errors
    settings : Corpus
        its `root` is absolute or relative to the working directory; fetched from its `archive` if it is not there
    out : str or Path
        folder to create, or a prepared corpus to replace

    Returns
    -------
    pandas.DataFrame
        the manifest, as `load` gives it
    """
    out, root = Path(out), None
    if settings.kind != "synthetic":
        root = Path(settings.root)
        if settings.archive is not None:
            provide(settings.archive, root)
        root = root.parent if root.suffix == ".csv" else root
    records, absent = list_corpus(settings)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "manifest.parquet").is_file()):
        raise CorpusError(f"{out} holds something else than a corpus; give another folder or remove it")
    splits = {record["split"] for record in records}
    records, unusable = _usable(name, records, settings, root)

    with _disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = out.with_name(f".{out.name}.part")
        shards = Shards(
            scratch, records, SHARD, fingerprint(settings.model_dump(exclude={"archive", "jobs", "unusable"}))
        )
        _make_all(name, shards, settings, root)
        unusable += shards.problems()
        _check(name, unusable, settings.unusable)
        if emptied := splits - shards.finish(unusable):
            raise CorpusError(f"corpus {name}: no usable file in split {', '.join(sorted(emptied))}; provide its files")
        write_left_out(name, shards.corpus, absent)
        shutil.rmtree(scratch / "replaced", ignore_errors=True)
        if out.exists():
            out.rename(scratch / "replaced")
        shards.corpus.rename(out)
        shutil.rmtree(scratch)
    return load(out)


@contextmanager
def _disk(out: Path):
    """What the disk or its rights refuse, in a CorpusError."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{out}: cannot be written ({error}); make room or give another place, and run again, which keeps the finished "
            "clips"
        ) from error


def _usable(name: str, records: list[dict], settings: Corpus, root: Path | None) -> tuple[list[dict], list[dict]]:
    """The records whose sources' headers can be read, with their stamps, and those that cannot be used."""
    if root is None:
        return records, []
    batches = _in_parallel(look_at, _batches(records), settings.jobs, settings, root)
    left_out, usable = [], []
    with progress(total=len(records), desc=f"headers {name}", unit="file") as bar:
        for batch, start in zip(batches, range(0, len(records), BATCH)):
            for record, seen in zip(records[start : start + BATCH], batch):
                kind = usable if seen["problem"] is None else left_out
                kind.append({**record, **seen})
            bar.update(len(batch))
    _check(name, left_out, settings.unusable)
    return usable, left_out


def _check(name: str, left_out: list[dict], most: int) -> None:
    if len(left_out) > most:
        told = "\n".join(record["problem"] for record in left_out[:LISTED])
        told += f"\nand {len(left_out) - LISTED} more" if len(left_out) > LISTED else ""
        allowed = f", and unusable={most} allows fewer" if most else ""
        raise CorpusError(f"corpus {name}: {len(left_out)} unusable files{allowed}, nothing written:\n{told}")


def _make_all(name: str, shards: Shards, settings: Corpus, root: Path | None) -> None:
    """Make the clips of the shards that are not finished."""
    missing = [number for number in range(len(shards)) if not shards.finished(number)]
    total, left = len(shards.records), sum(len(shards.of(number)) for number in missing)
    batches = (batch for number in missing for batch in _batches(shards.begin(number)))
    made = _in_parallel(make_clips, batches, settings.jobs, settings, root, shards.corpus)
    with progress(total=total, initial=total - left, desc=f"corpus {name}", unit="clip") as bar:
        waiting, rows = iter(missing), []
        number = next(waiting, None)
        for batch in made:
            rows += batch
            bar.update(len(batch))
            if len(rows) == len(shards.of(number)):
                shards.keep(number, rows)
                number, rows = next(waiting, None), []


def _batches(records: list[dict]) -> Iterator[list[dict]]:
    return (records[start : start + BATCH] for start in range(0, len(records), BATCH))


def _in_parallel(function: Callable, batches: Iterable[list[dict]], jobs: int, *more) -> Iterator[list[dict]]:
    """`function(batch, *more)` of every batch, in order, as they are asked for."""
    from joblib import Parallel, delayed

    return Parallel(n_jobs=jobs, return_as="generator")(delayed(function)(batch, *more) for batch in batches)

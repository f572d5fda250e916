"""From a folder of recordings or the embedded sound models to equal clips with a manifest."""

import tempfile
from pathlib import Path

from foleylib.corpora.clips import make_clips
from foleylib.corpora.fetch import provide
from foleylib.corpora.left_out import write_left_out
from foleylib.corpora.listing import list_corpus
from foleylib.datasets.manifest import COLUMNS, CorpusError, load, write_captions
from foleylib.params.corpora import Corpus
from foleylib.runtime import progress

BATCH = 16


def prepare(name: str, settings: Corpus, out: str | Path):
    """Write a corpus: `out/audio/<id>.wav` (16-bit mono, all of one length), `out/manifest.parquet` with a row a clip, and
    `out/captions.parquet` with a row a caption.

    Everything is written beside `out` and renamed at the end: if a source file cannot be used, all such files are named
    and `out` stays as it was. Rows and bytes are the same whatever `settings.jobs` is; memory does not grow with the
    audio. Work goes through joblib, whose backend `joblib.parallel_config` sets.

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
    import pandas as pd

    out, root = Path(out), None
    if settings.kind != "synthetic":
        root = Path(settings.root)
        if settings.archive is not None:
            provide(settings.archive, root)
        root = root.parent if root.suffix == ".csv" else root
    records, left_out = list_corpus(settings)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "manifest.parquet").is_file()):
        raise CorpusError(f"{out} holds something else than a corpus; give another folder or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as scratch:
        part = Path(scratch) / "corpus"
        (part / "audio").mkdir(parents=True)
        rows = _make_all(name, records, settings, root, part)
        problems = [row["problem"] for row in rows if "problem" in row]
        if problems:
            listed = "\n".join(problems)
            raise CorpusError(f"corpus {name}: {len(problems)} unusable files, nothing written:\n{listed}")
        pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(part / "manifest.parquet", index=False)
        write_captions(part, {row["id"]: row["captions"] for row in rows})
        write_left_out(name, part, left_out)
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        part.rename(out)
    return load(out)


def _make_all(name: str, records: list[dict], settings: Corpus, root: Path | None, part: Path) -> list[dict]:
    from joblib import Parallel, delayed

    batches = (records[start : start + BATCH] for start in range(0, len(records), BATCH))
    parallel = Parallel(n_jobs=settings.jobs, return_as="generator")
    rows = []
    with progress(total=len(records), desc=f"corpus {name}", unit="clip") as bar:
        for batch in parallel(delayed(make_clips)(batch, settings, root, part) for batch in batches):
            rows += batch
            bar.update(len(batch))
    return rows

"""results/summary.csv, as commands read it."""

import io
from pathlib import Path

import pandas as pd

from foleylib.corpora import csv_file

COLUMNS = ("paper", "table", "run", "class", "metric", "embedder", "seed", "value")


def read(file: Path) -> pd.DataFrame:
    """The scores of the last run; a ValueError where the file is not there, cut short or of something else."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; run ./run dvc repro evaluate first")
    return pd.read_csv(io.StringIO(csv_file.checked(file, COLUMNS, "run ./run dvc repro evaluate again")))

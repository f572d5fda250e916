"""The README's numbers are those of the committed results/summary.csv, whatever was run since: commit them together."""

import io
import re
import subprocess

import pandas as pd
import pytest

from foleylib import paths
from foleylib.params import settings as params
from foleylib.report import tables

COLUMNS = [
    ("average", "fad", 3),
    ("all", "fad", 3),
    ("all", "fd", 1),
    ("all", "judge_accuracy", 2),
    ("all", "clap_score", 2),
]


def results():
    """{run: cells} of the README's first table of results; a row names its run in backticks."""
    text = (paths.ROOT / "README.md").read_text().split("## Results on the embedded corpus")[1].split("\n\n- ")[0]
    rows = [line.strip("|\n").split("|") for line in text.splitlines() if line.startswith("|")][2:]
    return {re.search("`(.+?)`", name).group(1): [cell.strip() for cell in cells] for name, *cells in rows}


def cell(rows, digits):
    if len(rows) > 1:
        return f"{rows.value.mean():.{digits}f} ± {rows.value.std(ddof=1):.{digits}f}"
    row = rows.iloc[0]
    return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def test_results_are_those_of_the_committed_run():
    command = ["git", "show", "HEAD:results/summary.csv"]
    shown = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    summary = tables.of_table(pd.read_csv(io.StringIO(shown)), "", "")
    found = results()
    assert set(found) == set(summary.run) - {"latent_clap"}  # an encoder, whose scores are others
    for run, cells in found.items():
        of_run = summary[summary.run == run]
        found = [cell(of_run[(of_run["class"] == c) & (of_run.metric == m)], digits) for c, m, digits in COLUMNS]
        assert cells == found, run


DOCUMENTS = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("key", sorted({k for d in DOCUMENTS for k in re.findall(r"-S '?([\w.]+)=", d.read_text())}))
def test_the_settings_that_experiments_change_are_there(key):
    node = params.load().model_dump()
    for part in key.split("."):
        assert part in node, key
        node = node[part]

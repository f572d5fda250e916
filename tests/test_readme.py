"""The README's numbers are those of the committed results/summary.csv, whatever was run since: commit them together."""

import hashlib
import io
import re
import subprocess

import pandas as pd
import pytest
from PIL import Image

from foleylib import paths
from foleylib.commands import pictures
from foleylib.params import settings as params
from foleylib.report import tables


def results():
    """{run: cells} of the README's first table of results; a row names its run in backticks."""
    text = (paths.ROOT / "README.md").read_text().split("## Results on the synthetic corpus")[1].split("\n\n- ")[0]
    rows = [line.strip("|\n").split("|") for line in text.splitlines() if line.startswith("|")][2:]
    return {re.search("`(.+?)`", name).group(1): [cell.strip() for cell in cells] for name, *cells in rows}


def test_results_are_those_of_the_committed_run():
    command = ["git", "show", "HEAD:results/summary.csv"]
    shown = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    summary = tables.of_table(pd.read_csv(io.StringIO(shown)), "", "")
    found = results()
    assert set(found) == set(summary.run) - {"latent_clap"}  # an encoder, whose scores are others
    for run, cells in zip(found, tables.headlines(summary, list(found)).to_numpy().tolist()):
        printed = [cell.replace("\N{NO-BREAK SPACE}", " ").replace("-", "\N{MINUS SIGN}") for cell in cells]
        assert found[run] == printed, run


@pytest.mark.parametrize("name", ["spectrograms", "results"])
def test_pictures_are_those_of_the_committed_run(name):
    shown = subprocess.run(
        ["git", "show", f"HEAD:{pictures.MADE_FROM}"], cwd=paths.ROOT, capture_output=True, check=True
    )
    with Image.open(paths.ROOT / "docs" / "pictures" / f"{name}.png") as picture:
        made_from = picture.text[pictures.MADE_FROM]
    assert made_from == hashlib.sha256(shown.stdout).hexdigest(), (
        "run ./run foleylib pictures, and commit both together"
    )


@pytest.mark.parametrize("report", sorted((paths.ROOT / "reports").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_report_holds_a_path_of_a_machine(report):
    """A warning that a library prints begins with the path of its file."""
    found = re.search(r"(?<![\w.])/[\w./-]+/foleylib/\w[\w/]*\.py|(?<![\w.])/(home|root|Users)/\w+", report.read_text())
    assert found is None, found


DOCUMENTS = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("key", sorted({k for d in DOCUMENTS for k in re.findall(r"-S '?([\w.]+)=", d.read_text())}))
def test_the_settings_that_experiments_change_are_there(key):
    node = params.load().model_dump()
    for part in key.split("."):
        assert part in node, key
        node = node[part]

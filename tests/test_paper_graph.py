"""The graph of the profile paper in a few steps: published formats from a Hub of this machine, data sets in their
publishers' layouts, captions included, for all five papers. It takes minutes and runs where it is asked for:

    ./run pytest -m published
"""

import json
import subprocess
import sys

import nbformat
import pandas as pd
import paper_world
import pytest
from loopback_hub import serving
from workspace import environment, make_workspace

from foleylib.params import settings

pytestmark = pytest.mark.published
PAPERS = ("latent_clap", "text_foley", "transfer", "re_audioldm", "src_gaudio")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The workspace in which the whole graph has run."""
    workspace, hub = tmp_path_factory.mktemp("paper") / "repository", tmp_path_factory.mktemp("hub")
    workspace.mkdir()
    make_workspace(workspace, profile=None)
    paper_world.configure(workspace, hub)
    paper_world.record(workspace)
    with serving(hub) as server:
        there = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("cache")), "NO_PROXY": "127.0.0.1"}
        there["OMP_NUM_THREADS"] = "2"  # the evaluators have their published sizes
        command = [sys.executable, "warm_kernel.py", "before", "dvc", "repro"]
        done = subprocess.run(
            command, cwd=workspace, env=environment(workspace) | there, capture_output=True, text=True, check=False
        )
    if done.returncode:
        pytest.fail(f"dvc repro failed:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}", pytrace=False)
    return workspace


def test_the_foundation_is_what_the_hub_serves(world):
    content = json.loads((world / "models" / "published" / "published.json").read_text())
    parts = content["parts"]
    assert content["source"] == "hub" and {part["licence"] for part in parts.values()} >= {"cc-by-nc-sa-4.0"}
    assert parts["ldm"]["from"] == "cvssp/audioldm-m-full" and len(parts["ldm"]["revision"]) == 40


def test_captions_are_those_of_the_lists(world):
    captions = pd.read_parquet(world / "data" / "clips" / "audiocaps" / "captions.parquet")
    assert set(captions.caption) == set(paper_world.CAPTIONS)
    assert captions.groupby("id").size().isin((1, 5)).all()


@pytest.mark.parametrize("paper", PAPERS)
def test_the_paper_has_its_numbers(world, paper):
    page = nbformat.read(world / "reports" / f"paper_{paper}.ipynb", as_version=4)
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells)
    table = pd.read_csv(world / "results" / f"paper_{paper}.csv")
    scores = table.astype(str).apply(
        lambda column: column.str.contains(r"\d\.\d")
    )  # "24.0 ± 0.2" where there are seeds
    assert len(table) and scores.any(axis=1).sum() >= len(table) // 2


def test_scores_are_of_every_published_evaluator(world):
    embedders = settings.load(world / "params.yaml").evaluate.embedders
    summary = pd.read_csv(world / "results" / "summary.csv")
    assert {"fad_dcase", "cnn14_16k"} <= set(embedders) and len(summary)


def test_the_report_says_what_its_clips_may_be_used_for(world):
    card = json.loads((world / "results" / "evaluate" / "ldm.json").read_text())["card"]["licences"]
    told = {row["part"]: row["licence"] for row in card["made_from"]}
    assert (told["weights of clap"], told["weights of ldm"]) == ("apache-2.0", "cc-by-nc-sa-4.0")
    page = (world / "reports" / "14_evaluate.ipynb").read_text()
    assert "May not be used commercially" in page

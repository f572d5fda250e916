"""What the paper graph costs: the settings, the committed table and the document say the same."""

import pandas as pd
import pytest

from benchmarks import cost, paper_cost
from foleylib import paths


@pytest.fixture(scope="module")
def told():
    return paper_cost.table()


def test_the_document_shows_what_the_settings_cost(told):
    """Settings, committed table and docs/scaling.md say the same; a changed setting asks for
    `python -m benchmarks.paper_cost` and its lines in the document."""
    told = told.round(4)
    kept = pd.read_csv(paths.ROOT / "results" / "benchmarks" / "paper_cost.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(told, kept, rtol=1e-4, check_dtype=False)
    document = (paths.ROOT / "docs" / "scaling.md").read_text()
    section = document.split("## The whole graph of profile `paper`")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == paper_cost.lines(told)


def test_totals_add_up(told):
    totals, stages = told[told.stage == "total"].set_index("profile"), told[told.stage != "total"]
    for column in ("tflop", "roof_h", "assumed_h", "scaled_h", "cpu_h", "disk_gb"):
        assert totals[column]["all"] == pytest.approx(stages[column].sum())
        assert totals[column].drop("all").to_dict() == pytest.approx(stages.groupby("profile")[column].sum().to_dict())
    assert (told.roof_h <= told.assumed_h + 1e-9).all() and (told.assumed_h <= told.scaled_h + 1e-9).all()
    assert totals.memory_gb["all"] == stages.memory_gb.max() < 80  # of one card
    sweep = stages[(stages.profile == "latent_clap") & stages.stage.str.startswith("finetune")]
    assert set(sweep.work) == {"3 x 272,812 steps of 8, M"}
    assert sweep.tflop.sum() == pytest.approx(4 * 3 * 272812 * 8 * 670.7 / 1000, rel=1e-3)  # 670.7 GFLOP a clip


def test_costs_follow_the_settings():
    cfg = paper_cost.load("transfer")
    shorter = cfg.changed(transfer=cfg.transfer.changed(steps=240000, seeds=[0]))
    hours = []
    for settings in (cfg, shorter):
        costs = cost.Costs("transfer", settings)
        paper_cost.transfer(costs)
        hours.append([row["assumed_h"] for row in costs.rows if row["stage"] == "transfer"])
    (trained, drawn), (less, fewer) = hours
    assert less == pytest.approx(trained / 6) and drawn / 6 < fewer < drawn / 5.9  # the untuned rows stay

"""Tables: published numbers against their own averages, cells, refusals, settings and what made a part."""

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from foleylib.evaluation.metrics import HEADLINES
from foleylib.report import tables
from foleylib.report.style import Display
from foleylib.runtime import write_csv

CLASSES = ["DogBark", "Footstep", "GunShot", "Keyboard", "MovingMotorVehicle", "Rain", "Sneeze_Cough"]
DISPLAY = {"ldm": Display("LDM", "#0173b2"), "latent": Display("LDM + latent CLAP", "#cc78bc")}
FAD = {"metric": "fad", "classes": CLASSES, "display": DISPLAY}


def row(run, class_, value, *, metric="fad", embedder="vggish", seed=0, published=np.nan, comparable=False, width=0.5):
    scores = {"value": value, "low": value - width, "high": value + width, "n": 60, "seed": seed}
    what = {"paper": "p", "table": "I", "run": run, "class": class_, "metric": metric, "embedder": embedder}
    return what | scores | {"published": published, "comparable": comparable, "protocol": "card"}


@pytest.fixture
def summary():
    rows = [row("ldm", c, 1.0 + i, published=2.0 + i) for i, c in enumerate(CLASSES)]
    rows += [row("latent", c, 2.0 + i, published=3.0, comparable=True) for i, c in enumerate(CLASSES[:-1])]
    rows += [row("ldm", "all", 9.0), row("ldm", "all", 0.4567, metric="clap_score", embedder="clap", width=0.02)]
    return pd.DataFrame(rows)


def with_row(summary, *args, **options):
    return pd.concat([summary, pd.DataFrame([row(*args, **options)])])


def test_published_tables_agree_with_their_own_averages():
    latent = tables.published("latent-clap-loss", "I")
    assert latent.shape == (9, 9) and list(latent.columns) == [*CLASSES, "average", "std"]
    means, deviations = latent[CLASSES].mean(axis=1), latent[CLASSES].std(axis=1)
    np.testing.assert_allclose(means, latent["average"], atol=0.006)  # the paper has 7.05 for 7.056
    np.testing.assert_allclose(deviations, latent["std"], atol=0.011)
    text = tables.published("text-driven-foley", "1")
    assert text.loc["Baseline", CLASSES].mean() == pytest.approx(text.loc["Baseline", "average"], abs=0.005)
    audio = tables.published("text-driven-foley", "2").loc["Audio embedding", "MovingMotorVehicle"]
    small = text.loc["LDM-S+Pre+Text+Filter+Tuned", CLASSES[:4] + CLASSES[6:]].sum()
    headline = (small + audio + text.loc["LDM-L+Pre+Text+Filter+Tuned", "Rain"]) / 7
    assert headline == pytest.approx(text.loc["Best system per class", "average"], abs=0.005)


def test_published_of_several_metrics_has_them_as_columns():
    assert list(tables.published("latent-clap-loss", "II").columns) == ["audio_quality", "class_relevance"]
    with pytest.raises(ValueError, match="no published table 'X'"):
        tables.published("latent-clap-loss", "X")


def test_ours_and_published(summary):
    reference = pd.DataFrame({"average": [8.74]}, index=["ldm"])
    frame = tables.ours_and_published(summary, runs=["ldm", "latent"], reference=reference, **FAD)
    assert frame.columns.name == "FAD ↓ (published: another scale)" and frame.columns[0] == "Dog bark"
    assert list(frame.index) == ["LDM", "– published", "LDM + latent CLAP", "– published"]
    assert frame["Dog bark"].tolist() == ["1.000", "2.00", "2.000", "3.00"]
    assert frame["Average"].tolist() == ["4.000", "8.74", "–", "–"], "of a run without a class there is no average"
    assert frame["Sneeze, cough"].tolist() == ["7.000", "8.00", "–", "–"]
    compared = tables.ours_and_published(summary[summary.comparable], runs=["latent"], **FAD)
    assert compared.columns.name == "FAD ↓"
    without = tables.ours_and_published(summary.assign(published=np.nan), runs=["ldm"], **FAD)
    assert list(without.index) == ["LDM"]
    own = tables.ours_and_published(with_row(summary, "ldm", "average", 4.25), runs=["ldm"], **FAD)
    assert own.loc["LDM", "Average"] == "4.250"


@pytest.mark.parametrize("seed", [0, np.nan], ids=["a seed", "no seed"])
def test_deviation_over_classes(summary, seed):
    frame = tables.ours_and_published(summary.assign(seed=seed), runs=["ldm"], std=True, **FAD)
    assert frame.loc["LDM", "Std."] == "2.160"  # of 1 to 7


def test_tables_survive_the_trip_through_csv(summary, tmp_path):
    again = pd.read_csv(write_csv(summary, tmp_path / "summary.csv"))
    frames = [tables.ours_and_published(s, runs=["ldm", "latent"], **FAD) for s in (summary, again)]
    pd.testing.assert_frame_equal(*frames)
    text = write_csv(frames[0].iloc[:2, :2], tmp_path / "table.csv").read_bytes().decode()
    assert text == "System,Dog bark,Footstep\nLDM,1.000,2.000\n– published,2.00,3.00\n"
    plain = pd.DataFrame({"a": [1 / 3, 1e-9], "b": ["x", None]})
    assert write_csv(plain, tmp_path / "deep" / "plain.csv").read_bytes() == b"a,b\n0.333333,x\n1e-09,\n"


def test_intervals_over_clips_and_deviations_over_seeds_share_no_column(summary):
    averages = [row("ldm", "average", 4.0), row("ldm", "average", 6.0, seed=1), row("latent", "average", 1.0)]
    summary = pd.concat([summary, pd.DataFrame(averages)])
    overview = tables.metrics_overview(summary, ["ldm", "latent"], display=DISPLAY, class_="average")
    assert overview["FAD ↓"].tolist() == ["5.000\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.414", "1.000"]
    frame = tables.ours_and_published(summary, runs=["ldm", "latent"], **FAD)["Average"]
    assert frame["LDM"] == "5.000" and frame["LDM + latent CLAP"] == "1.000"
    assert (
        tables.metrics_overview(summary, ["latent"], class_="average")["FAD ↓"].item()
        == "1.000\N{NO-BREAK SPACE}[0.500,\N{NO-BREAK SPACE}1.500]"
    )


def test_every_metric_stands_under_its_embedder(summary):
    rows = [
        row(run, "average", 1.0, metric=m, embedder=e)
        for run in ("ldm", "latent")
        for e, m in (("a", "fad"), ("b", "fd"))
    ]
    rows += [row("ldm", "average", 2.0, metric="kad", embedder="a"), row("ldm", "all", 9.0, metric="fad", embedder="a")]
    frame = tables.by_embedder(pd.DataFrame(rows), ["ldm", "latent"], display=DISPLAY)
    assert list(frame.columns) == [("a", "FAD ↓"), ("b", "FD ↓"), ("a", "KAD ↓")]
    assert frame["a", "KAD ↓"].str[:3].tolist() == ["2.0", "–"] and list(frame.index) == ["LDM", "LDM + latent CLAP"]
    none = pd.DataFrame(rows)[:0]
    assert tables.by_embedder(none, ["ldm"], display=DISPLAY).shape == (1, 0)


def test_headlines_are_by_embedder():
    rows = [row("ldm", "average", 1.0, metric=m, embedder=e) for m, e in HEADLINES.items()]
    rows += [
        row("ldm", "average", 9.0, metric="kad", embedder="clap"),
        row("ldm", "all", 9.0, metric="kad", embedder="judge"),
    ]
    frame = tables.headlines(pd.DataFrame(rows), ["ldm"], display=DISPLAY)
    assert [head for head, _ in frame.columns] == ["independent judge"] * 4 + [
        "CLAP, which also conditions and selects"
    ] * 2
    assert frame.columns[0][1] == "KAD ↓" and frame.iloc[0, 0] == "1.0"


def test_differences_of_pairs():
    columns = ["run", "minus", "metric", "mean", "low", "high", "seeds"]
    rows = [("latent", "ldm", "fd", -2.2, -2.8, -1.6, 5), ("large", "ldm", "fd", 0.5, np.nan, np.nan, 1)]
    rows += [("latent", "ldm", "coverage", 0.1, 0.0, 0.2, 5), ("large", "ldm", "coverage", -0.004, np.nan, np.nan, 1)]
    frame = tables.differences(pd.DataFrame(rows, columns=columns), DISPLAY)
    assert list(frame.index) == ["LDM + latent CLAP − LDM", "large − LDM"] and frame.seeds.tolist() == [5, 1]
    assert frame["FD ↓"].tolist() == ["−2.2*", "+0.5"] and frame["Coverage ↑"].tolist() == ["+0.10", "−0.00"]


def test_a_finding_says_what_is_better_worse_and_neither():
    rows = [("kad", -2.0, -3.0, -1.0), ("coverage", -0.1, -0.2, -0.05), ("fd", 1.0, -1.0, 3.0)]
    frame = pd.DataFrame(rows, columns=["metric", "mean", "low", "high"]).assign(run="a", minus="b", seeds=3)
    assert tables.finding(frame, "a", "b").replace("\N{NO-BREAK SPACE}", " ") == (
        "**a against b** (3 training seeds): better in KAD (−2.0 [−3.0, −1.0]); worse in Coverage (−0.10 [−0.20, −0.05]); "
        "not told apart in FD (+1.0 [−1.0, +3.0])."
    )
    alone = frame.assign(low=np.nan, high=np.nan, seeds=1)
    assert tables.finding(alone, "a", "b", {"a": Display("A", None)}).replace("\N{NO-BREAK SPACE}", " ") == (
        "**A against b** (too few training seeds for an interval): better in KAD (−2.0); worse in Coverage (−0.10), FD (+1.0)."
    )
    assert "not told apart in KAD\N{NO-BREAK SPACE}(+0.0)" in tables.finding(
        alone.assign(mean=[0.0, -0.1, 1.0]), "a", "b"
    )
    assert tables.finding(alone.assign(mean=np.nan), "a", "b") == "**a against b**: no training seed in common."


def test_overview_splits_embedders_and_orders_metrics(summary):
    summary = with_row(with_row(summary, "ldm", "all", 3.0, embedder="clap"), "ldm", "all", 0.5, metric="own")
    frame = tables.metrics_overview(summary, ["ldm", "nobody"], display=DISPLAY)
    assert list(frame.columns) == ["FAD (vggish) ↓", "FAD (clap) ↓", "CLAP score ↑", "own"]
    assert frame.loc["LDM", "CLAP score ↑"] == "0.457\N{NO-BREAK SPACE}[0.437,\N{NO-BREAK SPACE}0.477]" and set(
        frame.loc["nobody"]
    ) == {"–"}


def test_refuses_what_is_missing_or_ambiguous(summary):
    with pytest.raises(ValueError, match=r"runs=\['nobody'\]"):
        tables.select(summary, metric="fad", runs=["nobody"])
    with pytest.raises(ValueError, match="metric='fid'"):
        tables.select(summary, metric="fid", runs=["ldm"])
    twice = with_row(summary, "ldm", "Rain", 3.0, embedder="panns")
    with pytest.raises(ValueError, match=r"class 'Rain'.*'embedder': \['vggish', 'panns'\]"):
        tables.select(twice, metric="fad", runs=["ldm"])


def test_rows_of_one_table(summary):
    twice = pd.concat([summary.assign(table="1"), summary[summary.run == "ldm"].assign(paper="q", table="2")])
    here = tables.of_table(twice, "q", "2")
    assert set(here.run) == set(summary.run) and len(here) == len(summary)
    assert here[here.run != "ldm"].published.isna().all()
    assert not tables.of_table(twice, "", "").duplicated(["run", "class", "metric", "embedder", "seed"]).any()


def test_targets_are_means_over_seeds_beside_the_published():
    rows = [("A", seed, selected, 10.0 + seed, 0.5) for seed in (0, 1) for selected in (False, True)]
    frame = pd.DataFrame(rows, columns=["row", "seed", "selected", "kad", "fad"])
    table = tables.targets(frame, pd.Series({"A": 12.5}))
    assert list(table.columns) == [
        *[(m, s) for m in ("KAD ↓", "FAD ↓") for s in ("unselected", "selected")],
        ("FAD ↓", "published"),
    ]
    assert (
        table.loc["A"].tolist()[:2] == ["10.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.7"] * 2
        and table.iloc[0, 4] == "12.50"
    )


class Train(BaseModel):
    steps: int
    betas: list[float]


class Part(BaseModel):
    size: int | None
    train: Train


SECTION = Part(size=None, train=Train(steps=10, betas=[0.9, 0.99]))


def test_settings_are_a_line_each():
    table = tables.settings(SECTION)
    assert table.index.name == "setting"
    assert table.value.to_dict() == {"size": "None", "train.steps": "10", "train.betas": "[0.9, 0.99]"}


def test_settings_of_a_part_are_those_it_was_trained_with():
    section, corpus = SECTION.model_dump(), {"kind": "synthetic", "seed": 2}
    trained_here = {"settings": section, "corpus": corpus, "seed": 0, "held_out": {"val_kl": 0.5}}
    assert tables.made_by(trained_here, SECTION).equals(tables.settings(SECTION))
    bundled = trained_here | {"settings": {"size": 7}, "commit": "abc", "sha256": {"model": "def"}}
    assert tables.made_by(bundled, SECTION).value.to_dict() == {
        "size": "7",
        "corpus.kind": "synthetic",
        "corpus.seed": "2",
        "seed": "0",
        "held_out.val_kl": "0.5",
        "commit": "abc",
    }
    assert tables.made_by({"source": "published checkpoint"}, SECTION).value.to_dict() == {
        "source": "published checkpoint"
    }

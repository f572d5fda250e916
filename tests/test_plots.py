"""Figures: what is drawn where, in whose name and colour, units on the axes, nothing left open, and refusals."""

import base64
import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foleylib.report import plots, style
from foleylib.report.style import Display

RNG = np.random.default_rng(3)
CLASSES = ["DogBark", "Footstep", "GunShot", "Keyboard", "MovingMotorVehicle", "Rain", "Sneeze_Cough"]
RUNS = ["real", "ldm", "mine"]
DISPLAY = {"real": Display("Real clips", "#333333"), "ldm": Display("LDM", "#0173b2")}


@pytest.fixture(autouse=True)
def theme():
    with plt.rc_context():
        plots.set_theme()
        yield
    assert plt.get_fignums() == [], "figures stay open"


@pytest.fixture(scope="module")
def summary():
    rows = []
    for i, run in enumerate(RUNS):
        for class_ in ["all", *CLASSES]:
            published = 5.0 if run == "ldm" and class_ != "all" else np.nan
            rows.append((run, class_, 3.0 + i, 2.5 + i, 4.0 + i, published))
    frame = pd.DataFrame(rows, columns=["run", "class", "value", "low", "high", "published"])
    return frame.assign(
        metric="fad", embedder="vggish", seed=0, comparable=False, paper="p", table="I", protocol="card"
    )


def drawn(figure):
    figure.draw_without_rendering()
    return figure


def texts(labels):
    return [label.get_text() for label in labels]


def test_runs_have_the_settings_name_and_colour_and_others_their_own():
    assert style.shown("ldm", DISPLAY) == DISPLAY["ldm"]
    mine = style.shown("mine", DISPLAY)
    assert mine.name == "mine" and mine == style.shown("mine") and mine.colour in style.OTHERS
    assert style.colours(["ldm", "mine"], DISPLAY) == {"ldm": "#0173b2", "mine": mine.colour}
    assert (
        len(set(style.colours(CLASSES).values())) == 7 and len(set(style.colours(map(str, range(30))).values())) == 30
    )


@pytest.mark.parametrize(
    "name, words",
    [
        ("ldm", "LDM"),
        ("DogBark", "Dog bark"),
        ("MovingMotorVehicle", "Motor vehicle"),
        ("sea_waves", "sea waves"),
        ("fad", "FAD ↓"),
        ("clap_score", "CLAP score ↑"),
        ("n", "Diffusion step n"),
        ("Latent CLAP", "Latent CLAP"),
    ],
)
def test_names_in_words(name, words):
    assert style.words(name, DISPLAY) == words


def test_figures_show_themselves_as_small_pngs_of_the_same_bytes():
    mels = [RNG.standard_normal((100, 64)) for _ in range(4)]
    first, second = (plots.mel_grid(mels, list("abcd"), rate=16000, hop=160)._repr_mimebundle_() for _ in range(2))
    image = Image.open(io.BytesIO(base64.b64decode(first["image/png"])))
    assert first == second and list(first) == ["image/png"] and image.mode == "P"
    assert np.asarray(image.convert("RGB")).std() > 50


def test_mel_grid_shares_its_scale_and_has_seconds():
    mels = [RNG.standard_normal((100, 64)) * (i + 1) for i in range(5)]
    figure = drawn(plots.mel_grid(mels, list("abcde"), rate=16000, hop=160))
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(images) == 5 and len({image.get_clim() for image in images}) == 1
    assert images[0].get_extent() == [0, 1.0, 0, 64]
    assert figure.axes[0].get_ylabel() == "Mel band" and figure.axes[4].get_xlabel() == "Time (s)"
    with pytest.raises(ValueError, match="1 titles"):
        plots.mel_grid(mels, ["a"], rate=16000, hop=160)


def test_history_skips_missing_values():
    step = np.arange(1, 201)
    frame = pd.DataFrame({"step": step, "ddpm": 1 / step, "gan": np.where(step > 100, 0.5, np.nan)})
    frame["val_ddpm"] = np.where(step % 50 == 0, 0.1, np.nan)
    frame["val_fad"] = frame.val_ddpm
    figure = drawn(plots.history(frame, terms=("ddpm", "gan", "fad")))
    ddpm, gan, fad = figure.axes
    assert [len(line.get_xdata()) for line in ddpm.lines] == [200, 200, 4]
    assert gan.lines[1].get_xdata()[0] == 101 and len(fad.lines) == 1
    np.testing.assert_allclose(gan.lines[1].get_ydata(), 0.5)
    with pytest.raises(ValueError, match="terms=\\['kl'\\]"):
        plots.history(frame, terms=("kl",))


def test_metric_bars_have_a_panel_for_each_class(summary):
    figure = drawn(plots.metric_bars(summary, metric="fad", runs=RUNS, display=DISPLAY, class_=None))
    assert len(figure.axes) == 7 and figure.axes[0].get_xlabel() == "FAD ↓"
    assert figure.axes[4].get_title() == "Motor vehicle" and not figure.legends
    assert texts(figure.axes[0].get_yticklabels()) == ["Real clips", "LDM", "mine"]


def test_published_scores_have_an_axis_of_their_own(summary):
    averages = summary[summary["class"] == "Rain"].assign(**{"class": "average"})
    published = pd.Series({"ldm": 8.74})
    figure = drawn(plots.beside_published(averages, published, metric="fad", runs=RUNS, display=DISPLAY))
    ours, theirs = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["ours", "published"]
    assert [line.get_xdata()[0] for line in theirs.lines] == pytest.approx([np.nan, 8.74, np.nan], nan_ok=True)
    assert len(ours.lines) == 2 * 3 and ours.get_ylim() == theirs.get_ylim()


def test_metric_bars_of_the_whole_set(summary):
    figure = drawn(plots.metric_bars(summary, metric="fad", runs=RUNS, display=DISPLAY))
    (axis,) = figure.axes
    assert [list(line.get_xdata()) for line in axis.lines[:2]] == [[2.5, 4.0], [3.0]] and not figure.legends
    assert [line.get_color() for line in axis.lines[1::2]] == ["#333333", "#0173b2", style.shown("mine").colour]
    with pytest.raises(ValueError, match="no fad of class 'Car'"):
        plots.metric_bars(summary, metric="fad", runs=RUNS, class_="Car")


def test_metric_bars_show_each_seed(summary):
    again = summary.assign(seed=1, value=summary.value + 1)
    (axis,) = drawn(plots.metric_bars(pd.concat([summary, again]), metric="fad", runs=["ldm"])).axes
    assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"] == [4.0, 5.0]


def test_confusion_counts_and_shares():
    axis = drawn(plots.confusion([[3, 1], [0, 0]], ["Rain", "DogBark"])).axes[0]
    assert texts(axis.texts) == ["3", "1", "0", "0"] and texts(axis.get_yticklabels()) == ["Rain", "Dog bark"]
    np.testing.assert_allclose(axis.collections[0].get_array().ravel(), [0.75, 0.25, 0, 0])
    with pytest.raises(ValueError, match=r"\(2, 2\) for 3 rows"):
        plots.confusion(np.ones((2, 2)), list("abc"))


def test_shares_have_a_point_for_each_column():
    frame = pd.DataFrame({"real": [0.5, np.nan], "decoded": [0.25, 1.0]}, index=["Rain", "DogBark"])
    (axis,) = drawn(plots.shares(frame, label="Recall")).axes
    np.testing.assert_array_equal([line.get_xdata() for line in axis.lines], frame.to_numpy().T)
    assert texts(axis.get_yticklabels()) == ["Rain", "Dog bark"] and axis.get_xlabel() == "Recall"
    assert [line.get_label() for line in axis.lines] == ["real", "decoded"]


def test_similarity_writes_numbers_only_where_they_fit():
    small, large = (drawn(plots.similarity(RNG.random((n, n)), range(n), range(n))).axes[0] for n in (3, 20))
    assert len(small.texts) == 9 and not large.texts


def test_embedding_map_has_a_legend_of_labels():
    figure = drawn(plots.embedding_map(RNG.standard_normal((70, 2)), np.repeat(CLASSES, 10)))
    legend = texts(figure.axes[0].get_legend().get_texts())
    assert legend[0] == "Dog bark" and len(legend) == 7
    runs = drawn(plots.embedding_map(RNG.standard_normal((9, 2)), np.repeat(RUNS, 3), display=DISPLAY))
    assert texts(runs.axes[0].get_legend().get_texts()) == ["LDM", "mine", "Real clips"]
    with pytest.raises(ValueError, match="3 labels"):
        plots.embedding_map(np.zeros((2, 2)), list("abc"))


@pytest.mark.parametrize("labelled", [True, False])
def test_audit_counts_every_clip_once(labelled):
    frame = pd.DataFrame({"rms_db": RNG.normal(-25, 5, 40), "silence_fraction": RNG.random(40)})
    frame["effective_bandwidth_hz"] = 7900.0
    frame = frame.assign(label=np.repeat(["Rain", "DogBark"], 20)) if labelled else frame
    figure = drawn(plots.audit(frame))
    for axis in figure.axes[:3]:
        np.testing.assert_allclose(np.reshape(axis.collections[0].get_array(), (2 if labelled else 1, -1)).sum(1), 100)
    assert figure.axes[2].get_xlabel() == "Effective bandwidth (kHz)"


def test_frontier_has_a_line_for_each_value():
    frame = pd.DataFrame({"seconds": [1, 0.1, 0.1, 1], "fad": [3, 5, 6, 4], "solver": ["a", "a", "b", "b"]})
    axis = drawn(plots.frontier(frame.assign(low=2, high=7), "seconds", "fad", "solver", log=True)).axes[0]
    assert axis.get_xlabel() == "Time per clip (s)" and axis.get_ylabel() == "FAD ↓" and axis.get_xscale() == "log"
    assert list(axis.lines[0].get_xdata()) == [0.1, 1] and len(axis.collections) == 2


def test_noise_levels_have_a_curve_a_column():
    frame = pd.DataFrame({"n": [500, 0], "ldm": [0.1, 1.0], "latent": [0.2, 0.9], "what": ["a", "b"]})
    axis = drawn(plots.noise_levels(frame, display=DISPLAY)).axes[0]
    assert axis.get_xlabel() == "Diffusion step n" and texts(axis.get_legend().get_texts()) == ["LDM", "latent"]
    assert list(axis.lines[0].get_xdata()) == [0, 500] and list(axis.lines[0].get_ydata()) == [1.0, 0.1]
    alone = drawn(plots.noise_levels(frame[["n", "latent"]])).axes[0]
    assert alone.get_ylabel() == "latent" and alone.get_legend() is None
    with pytest.raises(ValueError, match="no curves"):
        plots.noise_levels(pd.DataFrame({"n": [0, 1]}))


def test_differences_have_a_panel_for_each_metric():
    columns = ["run", "minus", "metric", "mean", "low", "high", "seeds"]
    rows = [("latent", "ldm", "kad", -0.1, -0.2, 0.1, 3), ("large", "ldm", "kad", 0.1, np.nan, np.nan, 1)]
    rows += [("latent", "ldm", "coverage", 0.1, 0.0, 0.2, 3)]
    axes = drawn(plots.differences(pd.DataFrame(rows, columns=columns), display=DISPLAY)).axes
    assert [axis.get_xlabel() for axis in axes] == ["Change of KAD ↓", "Change of Coverage ↑"]
    assert texts(axes[0].get_yticklabels()) == ["latent, from LDM", "large, from LDM"]
    assert [len(axis.lines) for axis in axes] == [2 * 2 + 1, 2 + 1] and axes[0].get_ylim()[0] > axes[0].get_ylim()[1]


def test_economics_have_a_panel_for_each_score():
    rows = [
        (t, way, n, 20.0 - n, 1.0, 0.5, 0.1)
        for t in ("text", "tuned")
        for way in ("threshold", "best of")
        for n in (1, 5)
    ]
    columns = ["target", "way", "candidates", "kad", "kad_sd", "coverage", "coverage_sd"]
    figure = drawn(plots.economics(pd.DataFrame(rows, columns=columns)))
    assert [axis.get_ylabel() for axis in figure.axes] == ["KAD ↓", "Coverage ↑"]
    assert [len(axis.lines) for axis in figure.axes] == [4, 4] and texts(figure.axes[0].get_xticklabels()) == ["1", "5"]
    assert texts(figure.legends[0].get_texts())[1] == "text target, best of"


def test_gains_have_a_panel_for_each_length():
    columns = ["weighting", "steps", "tuning", "s_n", "lambda_lclap", "mean", "low", "high", "seeds"]
    rows = [
        ("min-SNR 5", 40, False, "clean", 100, -0.1, -0.2, 0.0, 3),
        ("min-SNR 5", 40, False, "noisy", 100, -0.2, -0.3, -0.1, 3),
        ("none", 120, True, "noisy", 10, 0.1, np.nan, np.nan, 1),
    ]
    figure = drawn(plots.gains(pd.DataFrame(rows, columns=columns), metric="kad"))
    assert [axis.get_title() for axis in figure.axes] == ["min-SNR 5, 40 steps", "plain loss, 120 steps"]
    assert figure.axes[0].get_ylabel() == "Change of KAD ↓"
    assert [texts(axis.get_legend().get_texts()) for axis in figure.axes] == [["clean", "noisy"], ["noisy, tuning"]]


def test_lambda_sweep_has_a_line_and_a_band_each():
    grid = [(value, seed, tuning) for value in (0, 10) for seed in (0, 1) for tuning in (False, True)]
    frame = pd.DataFrame(grid, columns=["lambda_lclap", "seed", "tuning"]).assign(judge_accuracy=0.7)
    frame["kad"] = 0.3 + 0.01 * frame.seed
    figure = drawn(plots.lambda_sweep(frame, ("ldm", "mine"), display=DISPLAY))
    assert len(figure.axes) == 2 and all(len(a.lines) == 2 and len(a.collections) == 2 for a in figure.axes)
    assert texts(figure.axes[0].get_xticklabels()) == ["0", "10"]
    assert texts(figure.axes[0].get_legend().get_texts()) == ["LDM", "mine"]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([0.305, 0.305])
    alone = plots.lambda_sweep(frame[frame.tuning], ("ldm", "mine"))
    assert all(len(a.lines) == 1 for a in alone.axes)


def test_boxes_show_every_sampling():
    frame = pd.DataFrame({"row": ["a"] * 4 + ["b"] * 3, "sampling": [*range(4), *range(3)], "fad": RNG.random(7)})
    (axis,) = drawn(plots.boxes(frame)).axes
    points = np.concatenate([line.get_xdata() for line in axis.lines if line.get_marker() == "o"])
    assert list(points) == list(frame.fad) and texts(axis.get_yticklabels()) == ["a", "b"]

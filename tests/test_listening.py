"""Listening test: level, blinding and key of the kit; files that do not fit; statistics against closed forms."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import stats

from foleylib.evaluation.remarks import listed
from foleylib.report import tables
from foleylib.report.listening import ratings
from foleylib.report.listening.analysis import anova, pairwise, sphericity
from foleylib.report.listening.page import active_level, build, choose, match_loudness
from foleylib.report.listening.ratings import read_key, read_results
from foleylib.report.listening.report import describe, loudness_figure, means, table_two
from foleylib.report.style import Display

RATE = 8000
RUNS = ("real", "tuning", "tuning_latent")
LABELS = ("DogBark", "Rain")
DISPLAY = {"real": Display("Real clips", "#333333"), "tuning": Display("LDM + tuning", "#029e73")}


def noise(seed, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(RATE // 5)).clip(-1, 1).astype(np.float32)


def some_clips(runs=RUNS, labels=LABELS, n=2):
    rows = [
        (run, label, f"{label}-{i}", noise([r, k, i], 0.02 + 0.03 * r))
        for r, run in enumerate(runs)
        for k, label in enumerate(labels)
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["run", "class", "clip", "wave"])


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    out = tmp_path_factory.mktemp("kit")
    return out, build(out, some_clips(), rate=RATE, seed=0)


HEADER = ",".join(ratings.COLUMNS)


def simulate(key, folder, *, people, seed, effect=1.0, careless=()):
    """Files of simulated participants of every survey: later runs rated `effect` higher, listeners differ by 1.5."""
    rng, files = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for survey, part in key.groupby("survey"):
        for number in range(people):
            who = f"simulated-{survey}-{number}"
            files.append(folder / f"ratings-{survey}-{who}.csv")
            answers(part, who, rng, effect, number in careless).to_csv(files[-1], index=False)
    return files


def answers(part, who, rng, effect, careless):
    part = part.sample(frac=1, random_state=int(rng.integers(1 << 30)))
    rank = part.run.map({run: i for i, run in enumerate(RUNS)}).fillna(0).to_numpy()
    bias = rng.normal(5, 1.5)
    frame = part[["kit", "survey", "token"]].assign(participant=who, order=np.arange(1, len(part) + 1))
    for measure in ("quality", "relevance"):
        drawn = (bias + effect * rank + rng.normal(0, 1, len(part))).round().clip(0, 10).astype(int)
        frame[measure] = np.where(part.kind == "check", part.rating.fillna(0).astype(int), drawn)
    frame["plays"], frame["seconds"], frame["attention"] = 1, 6.5, "failed" if careless else "passed"
    if careless:
        frame.loc[part.kind.to_numpy() == "check", "quality"] = 0
    return frame


@pytest.fixture(scope="module")
def rated(kit, tmp_path_factory):
    return read_results(simulate(kit[1], tmp_path_factory.mktemp("files"), people=8, seed=1), kit[1])


def data_of(page):
    return json.loads(re.search(r'id="kit">(.*?)</script>', page.read_text(encoding="utf8"), re.DOTALL)[1])


# --- the kit


def test_active_level_of_a_sine_does_not_depend_on_pauses():
    t = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 400 * t)
    expected = 20 * np.log10(0.5 / np.sqrt(2))
    assert active_level(tone, RATE) == pytest.approx(expected, abs=1e-6)
    assert active_level(np.concatenate([tone, np.zeros(3 * RATE)]), RATE) == pytest.approx(expected, abs=1e-6)
    assert active_level(np.zeros(100), RATE) == -np.inf


def test_loudness_is_matched_or_the_clip_reported():
    soft, levels = match_loudness(noise(0, 0.01), RATE, target=-26)
    assert active_level(soft, RATE) == pytest.approx(-26, abs=1e-3) and not levels["limited"]
    assert levels["before_db"] + levels["gain_db"] == pytest.approx(levels["after_db"])
    knock = np.zeros(RATE, dtype=np.float32)
    knock[100] = 0.5
    sound, levels = match_loudness(knock, RATE, target=-20)
    assert levels["limited"] and levels["after_db"] < -20 and np.abs(sound).max() == pytest.approx(0.95, abs=1e-4)
    _, levels = match_loudness(noise(0, 1e-6), RATE)
    assert levels["limited"] and levels["gain_db"] == 40
    silent, levels = match_loudness(np.zeros(RATE), RATE)
    assert levels["limited"] and levels["gain_db"] == 0 and not silent.any()
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        match_loudness(np.zeros((2, 3)), RATE)


def test_choose_draws_the_same_number_of_each_class_and_run():
    manifest = pd.DataFrame({"id": [f"c{i}" for i in range(10)], "label": ["Rain"] * 6 + ["DogBark"] * 4})
    waves = np.arange(10.0)[:, None] * np.ones(3)
    sounds = {"real": (manifest, waves), "ldm": (manifest, waves)}
    clips = choose(sounds, clips_per_class=3, seed=0)
    assert (clips.groupby(["run", "class"]).size() == 3).all() and not clips.duplicated(["run", "clip"]).any()
    assert all(f"c{int(wave[0])}" == clip for clip, wave in zip(clips["clip"], clips.wave))
    assert clips["clip"].tolist() == choose(sounds, clips_per_class=3, seed=0)["clip"].tolist()
    assert clips["clip"].tolist() != choose(sounds, clips_per_class=3, seed=1)["clip"].tolist()
    with pytest.raises(ValueError, match="has 4 clips of 'DogBark'"):
        choose(sounds, clips_per_class=5, seed=0)
    with pytest.raises(ValueError, match="differ in their classes"):
        choose(sounds | {"ldm": (manifest[:6], waves)}, clips_per_class=1, seed=0)


def test_kit_has_a_survey_a_class_and_a_key_that_reads_back(kit):
    out, key = kit
    assert sorted(p.name for p in (out / "surveys").iterdir()) == ["survey-dogbark.html", "survey-rain.html"]
    pd.testing.assert_frame_equal(read_key(out / "key.csv"), key, check_dtype=False, rtol=1e-5)
    assert key.token.is_unique and (key.groupby(["survey", "kind"]).size() == [1, 6, 1, 6]).all()
    np.testing.assert_allclose(key.after_db.dropna(), -26, atol=1e-3)


def test_pages_tell_nothing_about_the_systems(kit):
    out, key = kit
    for page in sorted((out / "surveys").iterdir()):
        text = re.sub(r"base64,[\w+/=]+", "", page.read_text(encoding="utf8"))
        names = {*RUNS, *key["clip"].dropna()}
        assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
        items = data_of(page)["items"]
        assert [set(item) for item in items if "src" in item] == [{"token", "text", "src"}] * 6
        assert [item["token"] for item in items] == sorted(item["token"] for item in items)
        assert not re.search(r"""(src|href)=["']?(https?:|//)|url\(|fetch\(|@import""", text)


def test_page_holds_the_matched_sound(kit):
    out, key = kit
    items = {item["token"]: item for item in data_of(out / "surveys" / "survey-rain.html")["items"]}
    row = key[(key["class"] == "Rain") & (key.run == "tuning")].iloc[0]
    prefix, encoded = items[row.token]["src"].split(",")
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    clips = some_clips()
    original = clips[(clips.run == row.run) & (clips["clip"] == row["clip"])].wave.iloc[0]
    assert rate == RATE and prefix == "data:audio/flac;base64"
    np.testing.assert_allclose(sound, original * 10 ** (row.gain_db / 20), atol=1 / 32768)


def test_kits_are_reproducible_and_tokens_follow_the_sound(kit, tmp_path):
    again = build(tmp_path, some_clips(), rate=RATE, seed=0)
    pd.testing.assert_frame_equal(again, kit[1])
    clips = some_clips()
    clips.at[0, "wave"] = noise(99)
    other = build(tmp_path, clips, rate=RATE, seed=0)
    assert (other.token != again.token).sum() == 1 and other.kit[0] != again.kit[0]
    joint = build(tmp_path, clips, rate=RATE, seed=0, by_class=False, checks=2)
    assert [p.name for p in (tmp_path / "surveys").iterdir()] == ["survey-all.html"]  # the pages before are gone
    assert (joint.kind == "check").sum() == 2 and joint.rating.dropna().is_unique


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda clips: clips.drop(columns="wave"), {}, "no column"),
        (lambda clips: pd.concat([clips, clips[:1]]), {}, "twice"),
        (lambda clips: clips[(clips.run != "real") | (clips["class"] != "DogBark")], {}, "'dogbark' has no clip of"),
        (
            lambda clips: clips.replace({"class": {"Rain": "Dog-Bark", "DogBark": "dog bark"}}),
            {},
            "differ only in signs",
        ),
        (lambda clips: clips, {"checks": 10}, "checks=10"),
    ],
)
def test_kits_that_would_not_compare_are_refused(tmp_path, change, options, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, change(some_clips()), rate=RATE, seed=0, **options)


# --- ratings


def test_ratings_are_joined_with_the_key(kit, tmp_path):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    ratings = read_results([path], kit[0] / "key.csv")
    assert len(ratings) == 6 and ratings.simulated.all() and set(ratings.run) == set(RUNS)
    raw, key = pd.read_csv(path).set_index("token"), kit[1].set_index("token")
    for row in ratings.itertuples():
        (token,) = key.index[(key.run == row.run) & (key["clip"] == row.clip)]
        assert raw.quality[token] == row.quality and raw.order[token] == row.order


def test_careless_participants_are_left_out_and_counted(kit, tmp_path):
    ratings = read_results(simulate(kit[1], tmp_path, people=3, seed=0, careless=(1,)), kit[1])
    assert ratings.attrs["left_out"] == ["dogbark/simulated-dogbark-1", "rain/simulated-rain-1"]
    assert ratings.participant.nunique() == 4
    assert "2 more were left out" in describe(ratings) and "4 of the participants" in describe(ratings)
    real = ratings.assign(participant=ratings.participant.str[10:], simulated=False)
    assert "simulated" not in describe(real) and "no ratings yet" in describe(None)
    with pytest.raises(ValueError, match="all 2 participants missed"):
        read_results(simulate(kit[1], tmp_path, people=1, seed=0, careless=(0,)), kit[1])


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("quality", 11, "quality 11 is no whole number"),
        ("relevance", "4.5", "relevance"),
        ("quality", "", "quality nan"),
        ("token", "tffffffffffff", "1 tokens that the key does not have, 1 of the key's missing"),
        ("participant", "another", "a file holds one"),
        ("attention", "failed", "it was edited"),
        ("order", 99, "order 99 is no place of its own; it was edited"),
        ("order", 0, "order 0 is no place"),
        ("order", "x", "order 'x' is no place"),
        ("plays", 0, "plays 0 is no number of plays"),
        ("plays", -3, "plays -3 is no number of plays"),
        ("plays", 1.5, "plays 1.5 is no number of plays"),
        ("plays", 1001, "plays 1001 is no number of plays"),
        ("plays", "1e9", "plays 1000000000.0 is no number of plays"),
        ("plays", "inf", "plays inf is no number of plays"),
        ("plays", "", "plays nan is no number of plays"),
        ("plays", "many", "plays 'many' is no number of plays"),
        ("seconds", -1, "seconds -1.0 is no time"),
        ("seconds", "inf", "seconds inf is no time"),
        ("seconds", "", "seconds nan is no time"),
    ],
)
def test_spoilt_files_are_refused(kit, tmp_path, column, value, message):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    frame = pd.read_csv(path).astype(object)
    checks = kit[1][kit[1].kind == "check"].token
    frame.loc[frame.index[~frame.token.isin(checks)][0], column] = value
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        read_results([path], kit[1])


@pytest.mark.parametrize("name", ["", "a b", "x" * 41, "Zoë", "../x", "a/b", "=1+1", "a\nb"])
def test_an_id_that_no_page_gives_is_refused(kit, tmp_path, name):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    pd.read_csv(path).assign(participant=name).to_csv(path, index=False)
    with pytest.raises(ValueError, match="is no id that a page gives|a file holds one"):
        read_results([path], kit[1])


def test_one_listener_has_one_spelling(kit, tmp_path):
    first, second = simulate(kit[1], tmp_path, people=1, seed=0)
    for path, name in ((first, "Ann"), (second, "ann")):
        pd.read_csv(path).assign(participant=name).to_csv(path, index=False)
    with pytest.raises(ValueError, match="participant 'ann' is 'Ann' in another file; write one of them in both"):
        read_results([first, second], kit[1])
    pd.read_csv(second).assign(participant="Ann").to_csv(second, index=False)
    assert read_results([first, second], kit[1]).participant.unique().tolist() == ["Ann"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read as a CSV"),
        (b"kit,survey\n\xff\xfe,x\n", "byte .* is no UTF-8; give a file that a survey page saved"),
        ("kit,survey\n".encode("utf-16"), "byte 0 is no UTF-8"),
        (f"kit,{HEADER}\nZo\u00eb\n".encode("latin-1"), "is no UTF-8"),
        (f"{HEADER}\n{'a,' * 10}b\n".encode(), "rows have other than the 10 fields of the header, in line 2"),
        (f"{HEADER}\na,b\nc\n".encode(), "rows have other than the 10 fields of the header, in line 2, 3"),
        (f"{HEADER}\n".encode() + b",\n" * 59, "in line 2, 3, .*, 21 and 39 more"),
        (f"{HEADER}\n{'x' * 20000}{',' * 9}\n".encode(), "fields have more than 10000 characters, in line 2"),
        (f"{HEADER}\n{'x' * 200000}{',' * 9}\n".encode(), "line 2: field larger than field limit"),
        (f'{HEADER}\n"a{"," * 9}\n'.encode(), "cannot be read as a CSV .line 2: unexpected end of data"),
        (f"{HEADER},kit\n".encode(), "has the column kit twice"),
        (HEADER.replace(",", ";").encode(), "has no column kit, survey"),
        (b"\x00\x01", "character 0 is NUL"),
        (f"{HEADER}\n".encode(), "has a header alone"),
    ],
)
def test_what_is_no_table_is_refused(kit, tmp_path, content, sentence):
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"ratings.csv.*{sentence}"):
        read_results([path], kit[1])
    with pytest.raises(ValueError, match="nowhere.csv: cannot be read as a CSV"):
        read_results([tmp_path / "nowhere.csv"], kit[1])


def test_many_offenders_are_counted(kit, tmp_path):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    frame = pd.read_csv(path)
    told = listed(range(45))
    assert told.startswith("0, 1, ") and told.endswith("19 and 25 more")
    frame.assign(quality=11).to_csv(path, index=False)
    with pytest.raises(ValueError, match="quality 11, 11"):
        read_results([path], kit[1])


def test_every_file_that_is_spoilt_is_named(kit, tmp_path):
    files = simulate(kit[1], tmp_path, people=15, seed=0)
    for path in files[:-1]:
        pd.read_csv(path).assign(quality=11).to_csv(path, index=False)
    with pytest.raises(ValueError, match="29 files of ratings cannot be used:") as error:
        read_results(files, kit[1])
    lines = str(error.value).splitlines()
    assert (
        len(lines) == 22 and lines[-1] == "- and 9 more" and all(str(path) in str(error.value) for path in files[:20])
    )


def test_a_file_under_another_name_is_no_second_listener(kit, tmp_path):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    pd.read_csv(path).assign(participant="Ben").to_csv(tmp_path / "ben.csv", index=False)
    with pytest.raises(ValueError, match="ben.csv and .* hold the same ratings, plays and times in one order"):
        read_results([path, tmp_path / "ben.csv"], kit[1])
    named = pd.read_csv(path).assign(participant="NA")
    named.to_csv(tmp_path / "na.csv", index=False)
    assert read_results([tmp_path / "na.csv"], kit[1]).participant.unique().tolist() == ["NA"]


@pytest.mark.parametrize("column", ["quality", "plays", "seconds"])
def test_truths_are_no_numbers(kit, tmp_path, column):
    (path, *_) = simulate(kit[1], tmp_path, people=1, seed=0)
    pd.read_csv(path).assign(**{column: True}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"{column} .*True"):
        read_results([path], kit[1])


def test_files_of_other_kits_and_repeated_participants_are_refused(kit, tmp_path):
    files = simulate(kit[1], tmp_path, people=1, seed=0)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(files[0].read_bytes())
    with pytest.raises(ValueError, match="both hold participant dogbark/simulated-dogbark-0"):
        read_results([*files, copy], kit[1])
    with pytest.raises(ValueError, match="is of kit"):
        read_results(files, kit[1].assign(kit="0" * 12))
    pd.read_csv(copy)[:-1].to_csv(copy, index=False)
    with pytest.raises(ValueError, match="1 of the key's missing"):
        read_results([copy], kit[1])
    with pytest.raises(ValueError, match="files is empty"):
        read_results([], kit[1])
    with pytest.raises(ValueError, match="no column"):
        read_key(files[0])


# --- statistics


def ratings_of(table, classes=None, survey="s"):
    """Ratings from one value a listener and system (N, k), or a class more (N, k, c); ids of no simulation."""
    table = np.asarray(table, dtype=float)
    table = table[..., None] if table.ndim == 2 else table
    rows = []
    for (person, system, c), value in np.ndenumerate(table):
        name = f"k{c}" if classes is None else classes[person]
        rows.append((survey, f"p{person}", name, f"run{system}", "clip", value, value, False))
    columns = ["survey", "participant", "class", "run", "clip", "quality", "relevance", "simulated"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def table():
    return np.random.default_rng(3).normal(5, 1, (20, 3)) + np.linspace(0, 1.5, 20)[:, None] + [0, 0.4, 0.9]


def test_anova_of_two_systems_is_the_paired_t_test(table):
    result = anova(ratings_of(table[:, :2]), "quality").loc["system"]
    t = stats.ttest_rel(table[:, 0], table[:, 1])
    assert result.F == pytest.approx(t.statistic**2) and result.p == pytest.approx(t.pvalue)
    assert (result.eps, result.p_gg) == (1, pytest.approx(t.pvalue))
    assert result.eta2_p == pytest.approx(t.statistic**2 / (t.statistic**2 + 19)) and result.design == "one class"


def sums_of_squares(cells):
    """F ratios of a mixed design by hand, balanced cells [shape=(classes, listeners, systems)]."""
    g, n, k = cells.shape
    total, person = cells.mean(), cells.mean(axis=2)
    group, system, both = cells.mean(axis=(1, 2)), cells.mean(axis=(0, 1)), cells.mean(axis=1)
    ss_system = g * n * ((system - total) ** 2).sum()
    ss_both = n * ((both - group[:, None] - system + total) ** 2).sum()
    error = ((cells - person[..., None] - both[:, None] + group[:, None, None]) ** 2).sum()
    ss_class, between = n * k * ((group - total) ** 2).sum(), k * ((person - group[:, None]) ** 2).sum()
    df_error = g * (n - 1) * (k - 1)
    f = {"system": ss_system / (k - 1) / (error / df_error), "class": ss_class / (g - 1) / (between / (g * (n - 1)))}
    f["system x class"] = ss_both / ((k - 1) * (g - 1)) / (error / df_error)
    return f, ss_system / (ss_system + error), df_error


def test_mixed_anova_is_that_of_the_sums_of_squares(table):
    cells = table.reshape(2, 10, 3)
    result = anova(ratings_of(table, classes=["a"] * 10 + ["b"] * 10), "relevance")
    f, eta2, df_error = sums_of_squares(cells)
    assert result.F.to_dict() == pytest.approx(f) and set(result.design) == {"mixed"}
    row = result.loc["system"]
    assert (row.df1, row.df2, row.eta2_p) == (2, df_error, pytest.approx(eta2))
    covariance = sum(np.cov(cells[g].T) for g in range(2)) / 2
    contrasts = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    shape = contrasts @ covariance @ contrasts.T
    eps = np.trace(shape) ** 2 / (2 * np.trace(shape @ shape))
    assert row.eps == pytest.approx(eps) and row.df1_gg == pytest.approx(2 * eps)
    assert row.p_gg == pytest.approx(stats.f.sf(row.F, 2 * eps, df_error * eps))
    assert result.loc["class", "p_gg"] == pytest.approx(result.loc["class", "p"])


def test_sphericity_is_that_of_pingouin_in_one_group_and_of_the_eigenvalues(table):
    import pingouin

    result = sphericity(table, np.zeros(20))
    theirs = pingouin.sphericity(pd.DataFrame(table))
    assert (result["W"], result["p"]) == (pytest.approx(theirs.W), pytest.approx(theirs.pval))
    assert result["eps"] == pytest.approx(pingouin.epsilon(pd.DataFrame(table), correction="gg"))
    one_direction = np.outer(np.arange(20.0) - 9.5, [1, -1, 0])  # one eigenvalue only: the least eps, 1 / (k - 1)
    result = sphericity(one_direction, np.zeros(20))
    assert result["eps"] == pytest.approx(0.5) and result["W"] == pytest.approx(0, abs=1e-12)
    assert result["p"] < 1e-6
    shifted = table + np.repeat([[0, 0, 0], [3, -1, 2]], 10, axis=0)  # means of the classes do not enter
    groups = np.repeat([0, 1], 10)
    assert sphericity(shifted, groups) == pytest.approx(sphericity(table, groups))
    with pytest.raises(ValueError, match="3 systems need 4 or more"):
        sphericity(table[:2], [0, 1])
    with pytest.raises(ValueError, match="no variance"):
        sphericity(np.ones((9, 3)), np.zeros(9))


def test_listeners_of_all_classes_make_a_within_design(table):
    both = np.stack([table, table + np.random.default_rng(0).normal(0, 0.3, table.shape)], axis=2)
    result = anova(ratings_of(both), "quality")
    assert set(result.design) == {"within"} and list(result.index) == ["system", "class", "system x class"]
    alone = anova(ratings_of(both.mean(axis=2)), "quality").loc["system"]
    columns = ["df1", "df2", "F", "p", "eps", "W", "p_gg"]
    assert result.loc["system", columns].tolist() == pytest.approx(alone[columns].tolist())


def test_report_is_a_line_of_the_paper(table):
    spread = table * [1, 1, 6]  # far from spherical
    result = anova(ratings_of(spread), "quality").loc["system"]
    assert result.p_sphericity < 0.05 and 0.5 <= result.eps < 0.7
    assert result.report.startswith(
        f"F({result.df1_gg:.2g}, {result.df2_gg:.4g}) = {result.F:.1f}, p < .001, partial η² = ."
    )
    even = np.random.default_rng(8).normal(5, 1, (20, 3))
    assert anova(ratings_of(even), "quality").report.iloc[0].startswith("F(2, 38) = ")


def test_pairwise_is_that_of_pingouin_with_bonferroni(table):
    import pingouin

    ratings = ratings_of(table)
    result = pairwise(ratings, "quality")
    options = {"within": "run", "subject": "participant", "padjust": "bonf", "effsize": "cohen"}
    theirs = pingouin.pairwise_tests(ratings, dv="quality", **options)
    assert list(zip(result.a, result.b)) == list(zip(theirs.A, theirs.B))
    columns = {"t": "T", "df": "dof", "p": "p_unc", "p_bonferroni": "p_corr", "cohen_d": "cohen"}
    for ours, name in columns.items():
        np.testing.assert_allclose(result[ours], theirs[name].astype(float))
    np.testing.assert_allclose(
        result.difference, [table[:, i].mean() - table[:, j].mean() for i, j in [(0, 1), (0, 2), (1, 2)]]
    )
    assert (result.n == 20).all() and not result.simulated.any()


def test_designs_that_cannot_be_analysed_are_refused(table):
    ratings = ratings_of(table, classes=["a"] * 10 + ["b"] * 10)
    with pytest.raises(ValueError, match="measure='loudness'"):
        anova(ratings, "loudness")
    with pytest.raises(ValueError, match="two or more"):
        pairwise(ratings[ratings.run == "run0"], "quality")
    extra = ratings[ratings.participant == "p0"].assign(**{"class": "b"})
    with pytest.raises(ValueError, match="from 1 to 2 of 2 classes"):
        anova(pd.concat([ratings, extra]), "quality")
    with pytest.raises(ValueError, match="every listener all"):
        anova(ratings[1:], "quality")


def test_means_have_intervals_over_listeners(table):
    result = means(ratings_of(table, classes=["a"] * 10 + ["b"] * 10), level=0.9)
    row = result[(result.run == "run1") & (result["class"] == "all") & (result.metric == "audio_quality")].iloc[0]
    low, high = stats.t.interval(0.9, 19, loc=table[:, 1].mean(), scale=stats.sem(table[:, 1]))
    assert (row.value, row.low, row.high, row.n) == pytest.approx((table[:, 1].mean(), low, high, 20))
    of_class = result[(result.run == "run1") & (result["class"] == "b")]
    assert (of_class.n == 10).all() and of_class.value.iloc[0] == pytest.approx(table[10:, 1].mean())
    with pytest.raises(ValueError, match="level=1"):
        means(ratings_of(table), level=1)


def test_table_two_sets_the_papers_numbers_beside_ours(rated):
    published = tables.published("latent-clap-loss", "II")
    alone = table_two(None, published, runs=RUNS, display=DISPLAY)
    assert alone.to_numpy().tolist() == [["5.55", "6.03"], ["6.00", "6.55"], ["6.40", "7.03"]]
    assert list(alone.index) == ["Real clips", "LDM + tuning", "tuning_latent"]
    both = table_two(rated, published, runs=RUNS)
    assert [kind for _, kind in both.columns] == ["simulated", "published"] * 2
    mean = rated[rated.run == "tuning"].quality.mean()
    assert both.iloc[1, 0].startswith(f"{mean:.2f}\N{NO-BREAK SPACE}[") and both.iloc[1, 1] == "6.00"
    theirs = rated.assign(simulated=False, run=rated.run.replace("tuning", "mine"))
    other = table_two(theirs, published, runs=["real", "mine"], rows={"mine": "LDM+Tuning"})
    assert {kind for _, kind in other.columns} == {"ours", "published"} and other.loc["mine"].iloc[1] == "6.00"


def test_simulated_ratings_show_the_effect_put_in_and_are_marked(rated, kit, tmp_path):
    result = anova(rated, "quality")
    assert result.loc["system", "p_gg"] < 1e-6 and result.simulated.all() and result.loc["system", "df2"] == 2 * 14
    assert (pairwise(rated, "quality").p_bonferroni < 0.01).all() and means(rated).simulated.all()
    none = read_results(simulate(kit[1], tmp_path, people=8, seed=2, effect=0), kit[1])
    assert anova(none, "quality").loc["system", "p_gg"] > 0.01


def test_loudness_figure_shows_every_clip(kit):
    figure = loudness_figure(kit[1], display=DISPLAY)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Real clips", "LDM + tuning", "tuning_latent"]
    for axis in figure.axes:
        assert sum(len(points.get_offsets()) for points in axis.collections) == (kit[1].kind == "clip").sum()

"""params.yaml and its profiles: what is accepted, what is refused and how, what a profile changes."""

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from foleylib import params
from foleylib.params_schema import Params

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


def plain():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def refused(where, value):
    """The message for params.yaml with `value` put at the dotted key `where`."""
    settings = node = plain()
    *parents, last = where.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(ValueError) as error:
        params.parse(settings)
    return str(error.value)


def leaves(node, where=()):
    """(path, value) of everything that is no mapping, or an empty one."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*where, key))
    else:
        yield where, node


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    return tmp_path


def test_settings_of_the_repository():
    settings = params.load(ROOT / "params.yaml")
    assert settings == params.parse(plain()) and settings.audio.samples == settings.audio.rate * settings.audio.seconds


def test_an_experiment_changes_what_it_names_alone(project):
    """`dvc exp run -S` writes params.yaml anew; what a quoted string means must survive that."""
    file = project / "params.yaml"
    with modify_yaml(str(file)) as settings:
        settings["foley"]["common"]["lclap"]["s_n"] = "clean"
    expected = plain()
    expected["foley"]["common"]["lclap"]["s_n"] = "clean"
    assert params.load(file) == params.parse(expected) != params.parse(plain())


@pytest.mark.parametrize(
    "where, allowed",
    [
        ("sede", "audio, corpora, device, evaluate"),
        ("audio.sampling_rate", "padding, rate, seconds"),
        ("corpora.foley.class", "ambience, archive, classes"),
        ("foundation.clap.text.width", "heads, hidden, layers, max_tokens, vocabulary"),
        ("foundation.ldm.train.epochs", "accumulate, batch_size, betas"),
        ("foley.variants.ldm.steps", "condition, init"),
        ("foundation.sizes.ldm_large.width", "channels, checkpoint, head_channels"),
        ("runs.real.model", "made_from, overrides, seeds, source, tables"),
    ],
)
def test_unknown_key_is_named_with_those_allowed(where, allowed):
    message = refused(where, 1)
    assert f"- {where}: unknown key; allowed here: " in message and allowed in message


@pytest.mark.parametrize(
    "where, value",
    [
        ("seed", "many"),
        ("seed", -1),
        ("audio.rate", 44100),
        ("audio.seconds", [1]),
        ("foundation.ldm.train.steps", 0),
        ("foundation.ldm.train.steps", 2.5),
        ("foundation.clap", 3),
        ("sampling.solver", "euler"),
        ("foley.common.condition_dropout", 1.5),
        ("runs.real.source", "imaginary"),
    ],
)
def test_wrong_value_is_named_with_its_place(where, value):
    message = refused(where, value)
    assert f"- {where}: " in message and f"(got {value!r}" in message


@pytest.mark.parametrize(
    "where, value, sentence",
    [
        ("foundation.corpus", "none", "foundation.corpus is 'none', which is none of corpora: foley, broad"),
        ("sampling.corpus", "none", "sampling.corpus is 'none'"),
        ("runs.ldm.made_from", "models/x", "runs.ldm.made_from is 'models/x', which is none of: models/foundation/ldm"),
        ("runs.ldm.tables", ["3"], "runs.ldm.tables.0"),
        (
            "filters.ldm_filter.of",
            "real",
            "filters.ldm_filter.of is 'real', which is none of the sampled runs: foundation",
        ),
        ("selection.calibrate.text", "none", "selection.calibrate.text is 'none', which is none of: scratch"),
        ("runs.ldm_ddim.seeds", [7], "runs.ldm_ddim.seeds: [7] are not all among those trained"),
        ("selection.shares", [0.0, 0.5], "a share of 0 lets no candidate through"),
        ("listening.runs", ["real", "none"], "listening.runs has 'none'"),
        ("runs.ldm_ddim.overrides", {"solver": "euler"}, "solver"),
        ("runs.ldm_ddim.overrides", {"solvers": "ddim"}, "solvers"),
        ("corpora.broad.rate", 48000, "corpora.broad: rate and seconds differ from audio.rate and audio.seconds"),
        ("corpora.foley.clips_per_class", None, "a corpus of kind 'synthetic' needs 'clips_per_class'"),
        ("corpora.foley.kind", "esc50", "a corpus of kind 'esc50' needs 'folds'"),
        ("foundation.source", "checkpoint", "source 'checkpoint' needs 'checkpoint'"),
        ("foundation.ldm.head_channels", 15, "no multiple of head_channels 15"),
        ("foundation.ldm.groups", 7, "and groups 7"),
    ],
)
def test_impossible_combination_is_explained(where, value, sentence):
    assert sentence in refused(where, value)


def test_clip_that_cannot_be_halved_is_refused():
    settings = plain()
    settings["audio"]["seconds"] = 1.0
    for corpus in settings["corpora"].values():
        corpus["seconds"] = 1.0
    with pytest.raises(ValueError, match="100 mel frames.*multiple of 0.32 s"):
        params.parse(settings)


def test_all_problems_are_told_at_once():
    settings = plain()
    del settings["judge"]["widths"]
    settings["evaluate"]["level"], settings["seed"] = 2, "x"
    with pytest.raises(ValueError) as error:
        params.parse(settings, "my.yaml")
    lines = str(error.value).splitlines()
    assert lines[0] == "my.yaml cannot be used:" and len(lines) == 4
    assert "- judge.widths: missing" in lines


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        params.load(ROOT / "params.yaml").seed = 3


def test_run_settings():
    settings = params.load(ROOT / "params.yaml")
    published, usual = settings.sampling_of("ldm_ddim"), settings.sampling_of("ldm")
    assert usual == settings.sampling and published.solver == "ddim" and published.guidance == usual.guidance


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_apply_cleanly(project, name):
    file, before = project / "params.yaml", (project / "params.yaml").read_text()
    params.apply_profile(name, params=file)
    assert isinstance(params.load(file), Params)
    expected, removed = plain(), set()
    for where, value in leaves(yaml.safe_load((project / "params" / f"{name}.yaml").read_text())):
        node = expected
        for key in where[:-1]:
            node = node.setdefault(key, {})
        if where[-1] == "replace":
            removed |= set(node)
            node.clear()
        elif where[-1] == "remove":
            removed |= {key for key in value if node.pop(key)}
        else:
            node[where[-1]] = value
    assert yaml.safe_load(file.read_text()) == expected
    kept, lines = file.read_text(), [line.split("#", 1) for line in before.splitlines() if "#" in line]
    assert [c for at, c in lines if c.strip() not in kept and at.split(":")[0].strip() not in removed] == []
    once = file.read_text()
    params.apply_profile(name, params=file)
    assert file.read_text() == once


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_hold_differences_only(project, name):
    if name == "text_foley":  # it goes on top of another profile
        params.apply_profile("paper", params=project / "params.yaml")
    base = dict(leaves(yaml.safe_load((project / "params.yaml").read_text())))
    profile = dict(leaves(yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())))
    same = [".".join(where) for where, value in profile.items() if where in base and base[where] == value]
    assert same == [], f"params/{name}.yaml repeats params.yaml"


def test_variants_and_runs_hold_differences_only():
    settings, written = params.load(ROOT / "params.yaml"), plain()
    defaults = {name: field.default for name, field in type(settings.foley.variants["ldm"]).model_fields.items()}
    for name, changes in written["foley"]["variants"].items():
        assert [k for k, v in changes.items() if defaults.get(k) == v] == [], f"foley.variants.{name} repeats a default"
    for name, run in written["runs"].items():
        repeated = [k for k, v in run.get("overrides", {}).items() if written["sampling"][k] == v]
        assert repeated == [], f"runs.{name}.overrides repeats sampling"


def test_comments_and_order_survive(project):
    file = project / "params.yaml"
    (project / "params" / "mine.yaml").write_text("seed: 5\nsampling: {steps: 7}\n")
    before = file.read_text().splitlines()
    params.apply_profile("mine", params=file)
    after = YAML().load(file)
    assert after["seed"] == 5 and after["sampling"]["steps"] == 7
    assert list(after) == list(YAML().load(ROOT / "params.yaml")) and file.read_text().splitlines()[:2] == before[:2]


def test_profile_can_replace_a_section(project):
    file = project / "params.yaml"
    (project / "params" / "mine.yaml").write_text(
        "listening: {runs: [real, foundation]}\nfilters: {replace: true}\n"
        "runs: {replace: true, real: {source: real, made_from: data/x}, foundation: {made_from: models/foundation/ldm}}\n"
    )
    params.apply_profile("mine", params=file)
    assert list(params.load(file).runs) == ["real", "foundation"] and params.load(file).filters == {}


def test_profile_can_remove_an_entry(project):
    file = project / "params.yaml"
    (project / "params" / "mine.yaml").write_text("filters: {remove: [large_filter]}\n")
    params.apply_profile("mine", params=file)
    assert "large_filter" not in params.load(file).filters and "ldm_filter" in params.load(file).filters


def test_unknown_profile_is_named_with_those_there_are(project):
    with pytest.raises(ValueError, match=f"no profile 'smok'; params/ holds: {', '.join(PROFILES)}"):
        params.apply_profile("smok", params=project / "params.yaml")


def test_profile_that_does_not_fit_leaves_the_file(project):
    file, before = project / "params.yaml", (project / "params.yaml").read_text()
    (project / "params" / "bad.yaml").write_text("sampling: {stepz: 7}\n")
    with pytest.raises(ValueError, match="sampling.stepz: unknown key"):
        params.apply_profile("bad", params=file)
    assert file.read_text() == before


def test_fingerprint():
    settings = params.load(ROOT / "params.yaml")
    one = params.fingerprint(settings.sampling, 3, "x")
    assert len(one) == 16 and one == params.fingerprint(settings.sampling, 3, "x")
    other = settings.sampling.model_copy(update={"steps": 7})
    assert len({one, params.fingerprint(other, 3, "x"), params.fingerprint(settings.sampling, 4, "x")}) == 3


def test_table():
    table = params.table(params.load(ROOT / "params.yaml").foundation.vae)
    assert table.value["train.steps"] and table.value["weights.kl"] and table.index.is_unique

"""params.yaml and its profiles: what is accepted, what is refused and how, what a profile changes."""

import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from foleylib import paths
from foleylib.params import profiles
from foleylib.params import settings as params
from foleylib.params.read import read_yaml
from foleylib.params.runs import Display
from foleylib.params.systems import System

ROOT = Path(__file__).resolve().parents[1]
# A profile that is applied on top of another.
ON_TOP_OF = dict.fromkeys(["text_foley", "latent_clap", "transfer", "re_audioldm", "src_gaudio"], "paper")
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


def plain():
    return read_yaml(ROOT / "params.yaml")


def changed(changes):
    """params.yaml as a dict with values put at dotted keys, or keys as a tuple."""
    settings = plain()
    for where, value in changes.items():
        node = settings
        *parents, last = where.split(".") if isinstance(where, str) else where
        for key in parents:
            node = node[key]
        node[last] = value
    return settings


def refused(changes):
    """The message for params.yaml with those changes."""
    with pytest.raises(ValueError) as error:
        params.parse(changed(changes))
    return str(error.value)


def leaves(node, where=()):
    """(path, value) of everything that is no mapping, or an empty one."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*where, key))
    else:
        yield where, node


@pytest.fixture(scope="module")
def settings():
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def repository(tmp_path):
    """A folder with params.yaml and its profiles."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    return tmp_path


def test_settings_of_the_repository(settings):
    assert settings == params.parse(plain())
    assert [corpus.samples for corpus in settings.corpora.values()] == [20480, 20480, 20480, 61440]


def test_an_experiment_changes_what_it_names_alone(repository):
    """`dvc exp run -S` writes params.yaml anew; what a quoted string means must survive that."""
    file = repository / "params.yaml"
    with modify_yaml(str(file)) as settings:
        settings["finetune"]["lclap"]["s_n"] = "clean"
    assert params.load(file) == params.parse(changed({"finetune.lclap.s_n": "clean"})) != params.parse(plain())


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("sede", "corpora, detector, device, evaluate"),
        ("corpora.foley.class", "absent, ambience, archive, blacklists"),
        ("foundation.clap.text.width", "heads, hidden, layers, max_tokens, vocabulary"),
        ("foundation.ldm.train.epochs", "accumulate, batch_size, betas"),
        ("foundation.sizes.ldm_large.width", "channels, checkpoint, head_channels"),
        ("systems.ldm.steps", "condition, corpus, init"),
        ("systems.latent.loss.clap", "allowed here: lclap"),
        ("controls.real.made_from", "colour, decoded, name, source, tables"),
        ("runs.ldm.made_from", "clips, colour, name, tables"),
        ("runs.ldm.clips.model", "made_from, sampling, seeds"),
        ("filters.ldm_filter.of", "colour, name, select, tables"),
        ("filters.ldm_filter.select.kind", "allowed here: of, target"),
        ("evaluate.reference", "baseline, bootstrap, embedders, level, seed, split, splits"),
    ],
)
def test_unknown_key_is_named_with_those_allowed(where, allowed):
    message = refused({where: 1})
    assert f"- {where}: unknown key; allowed here: " in message and allowed in message


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("seed", "many"),
        ("seed", -1),
        ("corpora.foley.rate", 44100),
        ("corpora.foley.seconds", [1]),
        ("corpora.foley.padding", "none"),
        ("foundation.ldm.train.steps", 0),
        ("foundation.ldm.train.steps", 2.5),
        ("foundation.clap", 3),
        ("sampling.solver", "euler"),
        ("finetune.condition_dropout", 1.5),
        ("controls.real.source", "imaginary"),
        ("runs.ldm.colour", "blue"),
        ("filters.ldm_filter.select.target", "picture"),
    ],
)
def test_wrong_value_is_named_with_its_key(where, value):
    message = refused({where: value})
    assert f"- {where}: " in message and f"(got {value!r}" in message


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        ("foundation.corpus", "none", "foundation.corpus is 'none', which is none of corpora: foley, broad"),
        ("sampling.corpus", "none", "sampling.corpus is 'none'"),
        ("systems.ldm.corpus", "none", "systems.ldm.corpus is 'none', which is none of corpora: foley, broad"),
        ("runs.ldm.clips.made_from", "models/x", "made_from is 'models/x', which is none of: models/foundation/ldm"),
        ("runs.ldm.tables", ["3"], "runs.ldm.tables.0"),
        ("runs.ldm_ddim.clips.seeds", [7], "runs.ldm_ddim.clips.seeds: [7] are not all among those trained, [0, 1, 2]"),
        ("runs.foundation.clips.seeds", [0], "runs.foundation.clips.seeds: [0] are not all among those trained, []"),
        (
            "controls.real.source",
            "test",
            "controls.real: source 'test' needs decoded: true; the clips of evaluate.split as they",
        ),
        (
            "runs.real",
            {"name": "x", "clips": {"made_from": "models/foundation/ldm"}},
            "runs.real: controls has that name too; give it another",
        ),
        ("runs.ldm_ddim.clips.sampling", {"solver": "euler"}, "Input should be 'ddim' or 'dpm++'"),
        ("runs.ldm_ddim.clips.sampling", {"solvers": "ddim"}, "solvers"),
        ("filters.ldm_filter.select.of", "real", "select.of is 'real', which is none of runs: foundation"),
        (
            "filters.ldm",
            {"name": "x", "select": {"of": "ldm"}},
            "filters.ldm: another row has that name; call it ldm_filt",
        ),
        ("selection.calibrate.text", "none", "selection.calibrate.text is 'none', which is none of: scratch"),
        ("selection.shares", [0.0, 0.5], "selection.shares.0: Input should be greater than 0"),
        ("listening.runs", ["real", "none"], "an entry of listening.runs is 'none', which is none of: real"),
        ("evaluate.baseline", "real", "evaluate.baseline is 'real', which is none of runs: foundation"),
        ("evaluate.baseline", "ldm_filter", "evaluate.baseline is 'ldm_filter', which is none of runs"),
        ("corpora.foley.clips_per_class", None, "a corpus of kind 'synthetic' needs 'clips_per_class'"),
        ("corpora.foley.kind", "esc50", "a corpus of kind 'esc50' needs 'folds'"),
        ("foundation.source", "checkpoint", "source 'checkpoint' needs 'checkpoint'"),
        ("foundation.ldm.head_channels", 15, "no multiple of head_channels 15"),
        ("foundation.ldm.groups", 7, "and groups 7"),
        ("lambda_sweep.lambdas", [100, 300], "lambdas must hold 0"),
        ("lambda_sweep.corpus", "broad", "lambda_sweep.corpus must be sampling.corpus, 'foley'"),
        ("selection.calibrate.tuned", "ldm", "selection.calibrate.tuned is 'ldm', which has no tuning layer"),
        ("selection.seed", 1, "selection.seed 1 is a seed of systems.ldm, which tables report: thresholds need a seed"),
        (
            "selection.calibrate",
            {"text": "ldm"},
            "selection.calibrate names text: give a system for text and for tuned",
        ),
        ("systems.tuning.corpus", "broad", "runs.tuning: systems.tuning has another corpus than sampling, 'foley'"),
        (
            "runs.foundation.clips.made_from",
            "data/x",
            "runs.foundation.clips.made_from is 'data/x', which is none of: models/foundation/ldm",
        ),
        ("runs.ldm_ddim.clips.sampling", {"corpus": "broad"}, "runs.ldm_ddim.clips.sampling: all runs are of"),
        ("detector.corpus", "none", "detector.corpus is 'none', which is none of corpora: foley, broad, scenes"),
        ("corpora.wide.rates", [48000, 16000], "corpora.wide: rates [48000, 16000]: give two or more in rising order"),
        ("corpora.wide.rates", [48000], "rates [48000]: give two or more in rising order, up to the rate 48000"),
        ("corpora.wide.rates", [16000, 24000], "up to the rate 48000 of the clips"),
        (
            "corpora.wide.rates",
            [24000, 48000],
            "src_gaudio is told the sampling rate: give corpora.wide its 'rates', 16000",
        ),
        ("corpora.wide.seconds", 2.56, "corpora.wide: rate, seconds or padding differs from that of corpora.broad"),
        ("src_gaudio.corpus", "foley", "src_gaudio reads neighbours or tokens of corpus 'foley': name it in retrieval"),
        (
            "src_gaudio.vocoders",
            {"16khz": {"source": "foundation", "rate": 16000}},
            "src_gaudio.vocoders has none for 24000, 32000, 48000 Hz",
        ),
        ("systems.ldm.rates", True, "systems.ldm is told the sampling rate: give corpora.foley its 'rates'"),
        ("systems.ldm.corpus", "wide", "systems.ldm: corpora.wide has several 'rates', which it is not told"),
        ("transfer.corpora", ["wide"], "transfer (wide): corpora.wide has several 'rates', which it is not told"),
        ("judge.corpus", "wide", "judge: corpora.wide has several 'rates', which it is not told"),
        ("src_gaudio.vocoders.24khz.source", "foundation", "the foundation's vocoder is for 16000 Hz, not 24000"),
        ("src_gaudio.vocoders.24khz.upsampling.rates", [8, 6, 6], "their product must be the hop, 240 samples"),
        ("jobs", 0, "jobs"),
        ("combined.corpus", "scenes", "combined is told the sampling rate: give corpora.scenes its 'rates', 16000"),
        ("combined.corpus", "none", "combined.corpus is 'none', which is none of corpora"),
        ("combined.lclap", 0, "combined.lclap: Input should be greater than 0"),
        ("combined.reads.k", 51, "combined.reads.k 51 is more than retrieval.search.top, 50: raise that"),
        ("retrieval.corpora", ["none"], "an entry of retrieval.corpora is 'none', which is none of corpora: foley"),
        ("re_audioldm.corpus", "none", "re_audioldm.corpus is 'none', which is none of corpora: foley, broad, scenes"),
        (
            "retrieval.corpora",
            ["broad"],
            "re_audioldm.pretrained.retrieval reads neighbours or tokens of corpus 'scenes': name it in retrieval.corpora",
        ),
        (
            "systems.ldm.retrieval",
            {"k": 3},
            "systems.ldm.retrieval reads neighbours or tokens of corpus 'foley': name it in retrieval.corpora",
        ),
        ("retrieval.search.top", 5, "re_audioldm.models.both_10.k 10 is more than retrieval.search.top, 5: raise that"),
        (
            "retrieval.tokens.text",
            None,
            "re_audioldm.pretrained.retrieval reads text tokens, which retrieval.tokens leaves out",
        ),
        ("foundation.vocoder.segment", 6401, "foundation.vocoder.segment is no multiple of the hop of 160 samples"),
        (
            "corpora.foley.root",
            "../my_sounds",
            "kind 'synthetic' has no 'root': it is made here; to read a folder, give its",
        ),
        ("corpora.foley.folds", {"train": [1]}, "kind 'synthetic' has no 'folds': only esc50 and urbansound8k"),
        ("corpora.foley.split_fractions", {"train": 0.2}, "kind 'synthetic' has no 'split_fractions': its splits are"),
        (
            "evaluate.split",
            "val",
            "controls.real: source 'val' needs decoded: true; the clips of evaluate.split as they",
        ),
        ("corpora.foley.clips_per_class.val", 0, "controls.real: corpora.foley.clips_per_class gives no clips of its"),
    ],
)
def test_impossible_combination_is_explained(where, value, sentence):
    assert sentence in refused({where: value})


@pytest.mark.parametrize("change", [{"rate": 48000}, {"seconds": 2.56}, {"padding": "center"}])
def test_a_corpus_beside_the_foundations_is_like_it(change):
    """One VAE encodes all corpora: a corpus of another rate, length or front end is refused, used or not."""
    other = plain()["corpora"]["foley"] | change
    for name in ("foley", "other"):
        assert f"corpora.{name}: rate, seconds or padding differs from that of corpora.broad" in refused(
            {f"corpora.{name}": other}
        )


def test_rate_length_and_front_end_come_from_the_corpora():
    def changes(**values):
        return {f"corpora.{name}.{key}": value for name in plain()["corpora"] for key, value in values.items()}

    message = refused(changes(seconds=1.0))
    assert "corpora.broad.seconds 1.0 makes 100 mel frames" in message and "give a multiple of 0.32 s" in message
    other = changes(rate=24000, seconds=0.64, padding="center") | {
        "corpora.wide.rates": [16000, 24000],
        "combined.rates": [24000],
    }
    other |= {
        "src_gaudio.vocoders": {
            "own": {"source": "foundation", "rate": 24000},
            "low": {"source": "scratch", "rate": 16000},
        }
    }
    assert "segment is no multiple of the hop of 240 samples" in refused(other)
    settings = params.parse(changed(other | {"foundation.vocoder.segment": 7200}))
    assert (settings.corpus_of("foundation").samples, settings.corpus_of("judge").padding) == (15360, "center")


def test_all_problems_are_told_at_once():
    settings = plain()
    del settings["judge"]["widths"]
    settings["evaluate"]["level"], settings["seed"] = 2, "x"
    with pytest.raises(ValueError) as error:
        params.parse(settings, "my.yaml")
    lines = str(error.value).splitlines()
    assert lines[0] == "my.yaml cannot be used:" and len(lines) == 4
    assert "- judge.widths: missing" in lines


def test_settings_cannot_be_changed_in_place(settings):
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3


def test_a_changed_section_is_checked(settings):
    other = settings.changed(sampling=settings.sampling.changed(steps=7))
    assert other == params.parse(changed({"sampling.steps": 7})) and settings.sampling.steps == 8
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        settings.sampling.changed(steps=0)
    with pytest.raises(ValueError, match="evaluate.baseline is 'x'"):
        settings.changed(evaluate=settings.evaluate.changed(baseline="x"))


def test_sampling_of_a_run(settings):
    published, usual = settings.sampling_of("ldm_ddim"), settings.sampling_of("ldm")
    assert usual == settings.sampling
    assert published == settings.sampling.changed(solver="ddim", steps=25)
    other = params.parse(changed({"filters.ldm_filter.select.of": "ldm_ddim"}))
    assert other.sampling_of("ldm_filter") == published


def test_system_behind_a_run(settings):
    names = ["real", "reconstruction", "foundation", "ldm", "ldm_ddim", "large", "tuning_latent_filter"]
    systems = [None, None, None, "ldm", "ldm", "large", "tuning_latent"]
    assert [settings.system_of(name) for name in names] == systems


def test_models_behind_a_run(settings):
    folder = Path("models/systems/ldm")
    assert settings.models_of("ldm") == {seed: folder / str(seed) for seed in (0, 1, 2)}
    assert settings.models_of("ldm_filter") == settings.models_of("ldm")
    assert settings.models_of("ldm_ddim") == {0: folder / "0"}  # clips.seeds of the run
    assert settings.models_of("large") == {0: Path("models/systems/large/0")}  # seeds of the system
    other = params.parse(changed({"seed": 9}))
    assert other.models_of("foundation") == {9: Path("models/foundation/ldm")}
    assert list(other.models_of("reconstruction")) == list(other.models_of("real")) == [9]
    assert list(other.models_of("ldm")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: s.entry("systems", "none"), "systems in params.yaml has no 'none'; it has: scratch, label, ldm"),
        (lambda s: s.entry("filters", "ldm"), "filters in params.yaml has no 'ldm'; it has: ldm_filter"),
        (lambda s: s.entry("corpora", "none"), "corpora in params.yaml has no 'none'; it has: foley, broad"),
        (lambda s: s.seeds_of("none"), "systems in params.yaml has no 'none'"),
        (lambda s: s.models_of("none"), "runs in params.yaml has no 'none'; it has: foundation, .*, ldm_filter"),
        (lambda s: s.foundation.section("xl"), "no part 'xl'; it has: clap, vae, vocoder, ldm, ldm_large"),
    ],
)
def test_unknown_names_are_told_with_those_there_are(settings, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(settings)


def test_display():
    settings = params.parse(changed({"filters.tuning_filter.colour": "#123456", "runs.label.colour": None}))
    display = settings.display()
    assert list(display) == [*settings.controls, *settings.runs, *settings.filters]
    assert display["real"] == Display("Held-out synthetic clips", "#333333") and display["label"].colour is None
    assert display["ldm_filter"] == Display("LDM, filter", display["ldm"].colour)  # of the run that it selects from
    assert display["tuning_filter"].colour == "#123456" != display["tuning"].colour


def test_no_two_rows_look_alike(settings):
    display = settings.display()
    names, rows = [row.name for row in display.values()], settings.controls | settings.runs
    colours = [display[name].colour for name in rows]
    assert len(set(names)) == len(names) and len(set(colours)) == len(colours)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_apply_cleanly(repository, name):
    file = repository / "params.yaml"
    if name in ON_TOP_OF:
        profiles.apply(ON_TOP_OF[name], params=file)
    before = file.read_text()
    profiles.apply(name, params=file)
    params.load(file)
    expected, removed = yaml.safe_load(before), set()
    for where, value in leaves(yaml.safe_load((repository / "params" / f"{name}.yaml").read_text())):
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
    after, lines = file.read_text(), [line.split("#", 1) for line in before.splitlines() if "# " in line]
    lost = [
        comment for key, comment in lines if comment.strip() not in after and key.split(":")[0].strip() not in removed
    ]
    assert lost == []
    profiles.apply(name, params=file)
    assert file.read_text() == after


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_hold_differences_only(repository, name):
    if name in ON_TOP_OF:
        profiles.apply(ON_TOP_OF[name], params=repository / "params.yaml")
    base = dict(leaves(yaml.safe_load((repository / "params.yaml").read_text())))
    profile = dict(leaves(yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())))
    same = [".".join(where) for where, value in profile.items() if where in base and base[where] == value]
    assert same == [], f"params/{name}.yaml repeats params.yaml"


def test_systems_and_runs_hold_differences_only():
    written = plain()
    defaults = {name: field.default for name, field in System.model_fields.items()}
    for name, system in written["systems"].items():
        assert [k for k, v in system.items() if defaults[k] == v] == [], f"systems.{name} repeats a default"
    for name, run in written["runs"].items():
        repeated = [k for k, v in run["clips"].get("sampling", {}).items() if written["sampling"][k] == v]
        assert repeated == [], f"runs.{name}.clips.sampling repeats sampling"


def test_comments_and_order_survive(repository):
    file = repository / "params.yaml"
    (repository / "params" / "mine.yaml").write_text("seed: 5\nsampling: {steps: 7}\n")
    before = file.read_text().splitlines()
    profiles.apply("mine", params=file)
    after = YAML().load(file)
    assert after["seed"] == 5 and after["sampling"]["steps"] == 7
    assert list(after) == list(YAML().load(ROOT / "params.yaml")) and file.read_text().splitlines()[:2] == before[:2]


def test_profile_can_replace_a_section(repository):
    file = repository / "params.yaml"
    (repository / "params" / "mine.yaml").write_text(
        "listening: {runs: [real, base]}\n"
        "evaluate: {baseline: base}\n"
        "filters: {replace: true}\n"
        "controls: {replace: true, real: {name: Real, source: val}}\n"
        "runs:\n"
        "  replace: true\n"
        "  base: {name: Base, clips: {made_from: models/foundation/ldm}}\n"
    )
    profiles.apply("mine", params=file)
    assert list(params.load(file).rows()) == ["real", "base"]


def test_profile_can_remove_an_entry(repository):
    file = repository / "params.yaml"
    (repository / "params" / "mine.yaml").write_text("filters: {remove: [large_filter]}\n")
    profiles.apply("mine", params=file)
    assert set(plain()["filters"]) - set(params.load(file).filters) == {"large_filter"}


def test_unknown_profile_is_named_with_those_there_are(repository):
    with pytest.raises(ValueError, match=f"no profile 'smok'; params/ holds: {', '.join(PROFILES)}"):
        profiles.apply("smok", params=repository / "params.yaml")


def test_profile_that_does_not_fit_leaves_the_file(repository):
    file, before = repository / "params.yaml", (repository / "params.yaml").read_text()
    (repository / "params" / "bad.yaml").write_text("sampling: {stepz: 7}\n")
    with pytest.raises(ValueError, match="sampling.stepz: unknown key"):
        profiles.apply("bad", params=file)
    assert file.read_text() == before


def test_profiles_from_the_command_line(repository, monkeypatch):
    monkeypatch.setattr(paths, "PARAMS", repository / "params.yaml")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["params", *arguments])
        runpy.run_module("foleylib.params", run_name="__main__")

    run("smoke")
    assert params.load().sampling.steps == 4
    for arguments, message in (([], "usage: .* PROFILE"), (["smok"], "there is no profile 'smok'")):
        with pytest.raises(SystemExit, match=message):
            run(*arguments)


def test_comments_name_modules_that_there_are():
    text = "\n".join(file.read_text() for file in [ROOT / "params.yaml", *(ROOT / "params").glob("*.yaml")])
    modules = set(re.findall(r"python -m (foleylib[\w.]*)|from (foleylib[\w.]*) import", text))
    absent = [name for names in modules for name in names if name and importlib.util.find_spec(name) is None]
    assert modules and absent == []


def test_thresholds_that_are_given_need_no_model_of_their_own(settings):
    assert settings.trained_seeds("ldm") == [*settings.seeds_of("ldm"), settings.selection.seed]
    given = settings.changed(selection=settings.selection.changed(thresholds="text-driven-foley"))
    assert given.trained_seeds("ldm") == given.seeds_of("ldm") and given.calibrating_seed("ldm") == 0


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("jobs", 0, "jobs: Input should be -1, or it should be greater than or equal to 1 (got 0)"),
        ("selection.thresholds", "none", "'latent-clap-loss', or it should be a valid dictionary (got 'none')"),
        ("selection.thresholds", {"all": "much"}, "selection.thresholds.all: Input should be a valid number"),
    ],
)
def test_a_value_of_several_kinds_has_one_sentence(key, value, said):
    changed = yaml.safe_load((ROOT / "params.yaml").read_text())
    *parents, last = key.split(".")
    section = changed
    for name in parents:
        section = section[name]
    section[last] = value
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        params.parse(changed)
    assert "literal[" not in str(refused.value) and "constrained" not in str(refused.value)

"""The papers' profiles on top of `paper`: what they set is what the papers say."""

import re
import shutil

import pytest

from foleylib.params import profiles
from foleylib.params import settings as params
from foleylib.paths import ROOT

# (key in the settings, value, where the paper says so). "code": the authors' public code, where the paper is silent.
STATED = {
    "text_foley": [
        ("corpora.foley.kind", "dcase2023t7", "4.1"),
        (
            "corpora.foley.split_fractions",
            {"train": 0.9, "val": 0.1, "test": 0.0},
            "4.1: 9 : 1, the evaluation set apart",
        ),
        ("corpora.foley.prompt_template", None, "1, 2: a text of its own for each label"),
        ("foundation.ldm.channels", [128, 256, 384, 640], "code: LDM-S, model channels 128"),
        ("finetune.train.lr", 3e-5, "4.3"),
        ("finetune.train.weight_decay", 0.0, "4.3: Adam"),
        ("finetune.train.steps", 1000 * 4365 // 8, "4.3: up to 1,000 epochs"),
        ("finetune.train.batch_size", 8, "code"),
        ("systems.tuning.tuning", True, "3.2: embedding tuning"),
        ("sampling.steps", 200, "code"),
        ("sampling.eta", 1.0, "code"),
        ("sampling.clips_per_class", 100, "4.3"),
        ("selection.thresholds", "text-driven-foley", "code"),
        ("selection.best_of.MovingMotorVehicle", 10, "code"),
        ("selection.best_of.DogBark", 3, "code"),
        ("selection.duplicate", 0.99, "code"),
        ("selection.relax_by", 0.05, "code"),
        ("selection.relax_after", 3, "code"),
        ("selection.targets", 100, "code"),
        ("targets.label", "MovingMotorVehicle", "Table 2"),
        ("targets.texts.A moving motor", "a moving motor", "Table 2"),
        ("targets.texts.Driving/motor/car", "driving, motor, car", "Table 2"),
        ("targets.clips", 100, "4.3"),
        ("targets.candidates", 20 * 100, "5: up to 20 samplings"),
        ("targets.steps", 1000 * 4365 // 8, "4.3"),
    ],
    "latent_clap": [
        ("corpora.foley.kind", "dcase2023t7", "IV-A"),
        ("corpora.foley.rate", 16000, "IV-A: resampled to 16 kHz"),
        ("corpora.foley.seconds", 10.24, "IV-A"),
        ("corpora.foley.fit", "repeat", "IV-A"),
        ("corpora.foley.prompt_template", "This is a sound of {label}.", "IV-A"),
        ("foundation.ldm.channels", [192, 384, 576, 960], "IV-B: audioldm-m-full"),
        ("foundation.clap.dim", 512, "IV-B"),
        ("foundation.ldm.noise.steps", 1000, "IV-B"),
        ("latent_clap.widths", [64, 128, 256, 512], "III-D: PANN-10"),
        ("finetune.train.lr", 3e-6, "IV-B"),
        ("finetune.train.weight_decay", 0.0, "IV-B: Adam"),
        ("finetune.train.steps", 500 * 4365 // 8, "IV-B: up to 500 epochs"),
        ("finetune.lclap.decay", 200.0, "IV-B: w(n) = 10^(-n / 200)"),
        ("systems.latent.loss.lclap", 2000.0, "IV-B"),
        ("systems.latent.tuning", False, "IV-B"),
        ("systems.tuning_latent.loss.lclap", 1000.0, "IV-B"),
        ("systems.tuning_latent.tuning", True, "IV-B"),
        ("lambda_sweep.steps", 100 * 4365 // 8, "Fig. 3: 100 epochs"),
        ("lambda_sweep.tuning", [False, True], "Fig. 3"),
        ("sampling.solver", "ddim", "code"),
        ("sampling.steps", 200, "IV-B"),
        ("sampling.guidance", 2.0, "IV-B"),
        ("sampling.clips_per_class", 100, "IV-B"),
        ("selection.thresholds", "latent-clap-loss", "IV-B"),
        ("listening.by_class", True, "V-C: 7 surveys"),
        ("listening.clips_per_class", 15, "V-C"),
        ("listening.runs", ["real", "tuning", "tuning_latent"], "Table II"),
    ],
    "transfer": [
        ("transfer.untuned", ["esc50", "urbansound8k", "audiocaps", "audioset"], "Table I"),
        ("transfer.corpora", ["esc50", "urbansound8k", "audiocaps"], "Table II"),
        ("transfer.steps", 480000, "Table II"),
        ("transfer.clips.test", 400, "III-B: ESC50, 400 samples"),
        ("corpora.esc50.kind", "esc50", "III-B"),
        ("corpora.urbansound8k.kind", "urbansound8k", "III-B"),
        ("sensitivity.noise", 0.2, "IV-A: 20 % of the value range"),
        ("sensitivity.masks", 2, "IV-A"),
        ("sensitivity.mask_length", 0.1, "IV-A"),
    ],
    "re_audioldm": [
        ("re_audioldm.corpus", "audiocaps", "4.1"),
        ("re_audioldm.pretrained.channels", [128, 256, 384, 640], "4.2: 128 channels"),
        ("re_audioldm.pretrained.train.lr", 5e-5, "4.2"),
        ("re_audioldm.pretrained.train.batch_size", 4, "4.2"),
        ("re_audioldm.pretrained.train.steps", 80 * 46000 // 4, "4.2: up to 80 epochs"),
        ("re_audioldm.pretrained.train.validate_every", 100000, "4.2: every 100,000 steps"),
        ("re_audioldm.lr", 5e-5, "4.2"),
        ("re_audioldm.steps", 10 * 46000 // 4, "ours: 10 epochs"),
        ("finetune.train.batch_size", 4, "4.2"),
        ("re_audioldm.models.audio", {"audio": True, "text": False, "k": 3}, "Table 1"),
        ("re_audioldm.models.both.k", 3, "Table 1"),
        ("re_audioldm.models.both_10.k", 10, "Table 1"),
        ("re_audioldm.captions", 5, "Fig. 3: caption groups 1 to 5"),
        ("retrieval.search.top", 50, "4.2: top-50"),
        ("retrieval.tokens.audio", "audiomae", "4.2"),
        ("retrieval.tokens.text", "t5", "4.2"),
        ("retrieval.tokens.length", 50, "4.2"),
        ("corpora.audiocaps.rate", 16000, "4.2"),
    ],
    "src_gaudio": [
        ("corpora.wide.rate", 48000, "III-A"),
        ("corpora.wide.rates", [16000, 24000, 32000, 48000], "III-B"),
        ("src_gaudio.pretrained.channels", [320, 640, 640, 1280], "III-B"),
        ("src_gaudio.pretrained.head_channels", 64, "III-B: heads 5, 10, 10, 20"),
        ("src_gaudio.pretrained.train.steps", -(-40 * 40259 // 32), "III-B: 40 epochs, at 16 kHz"),
        ("src_gaudio.train.steps", 40 * 4 * 40259 // 32, "III-B: 40 epochs, at four rates"),
        ("src_gaudio.train.batch_size", 32 // 2, "ours"),
        ("src_gaudio.train.accumulate", 2, "ours"),
        ("src_gaudio.guidance", 3.0, "III-B"),
        ("sampling.solver", "ddim", "III-B"),
        ("sampling.steps", 200, "III-B"),
        ("retrieval.tokens.text", "t5", "III-B: FLAN-T5-large"),
    ],
}
PAPER_STAGES = {name: f"paper_{name}" for name in STATED}


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    """Folder of params.yaml with `paper` and, on top of it, a profile, by the name of that."""
    folders = {}
    for name in STATED:
        folders[name] = folder = tmp_path_factory.mktemp(name)
        shutil.copy(ROOT / "params.yaml", folder)
        shutil.copytree(ROOT / "params", folder / "params")
        for profile in ("paper", name):
            profiles.apply(profile, params=folder / "params.yaml")
    return folders


@pytest.fixture(scope="module")
def settings(applied):
    return {name: params.load(folder / "params.yaml") for name, folder in applied.items()}


def at(settings, key):
    """The value at a dotted key, as plain Python."""
    node = settings.model_dump()
    for part in key.split("."):
        node = node[part]
    return list(node) if isinstance(node, tuple) else node


@pytest.mark.parametrize(
    ("profile", "key", "value", "where"), [(p, *row) for p, rows in STATED.items() for row in rows]
)
def test_a_profile_says_what_its_paper_says(settings, profile, key, value, where):
    assert at(settings[profile], key) == value, f"{profile}, {key}: the paper has {value} (Section {where})"


@pytest.mark.parametrize("profile", STATED)
def test_applied_again_a_profile_changes_nothing(applied, profile):
    file = applied[profile] / "params.yaml"
    before = file.read_text()
    profiles.apply(profile, params=file)
    assert file.read_text() == before


@pytest.mark.parametrize("profile", STATED)
def test_a_profile_begins_with_how_to_apply_it(profile):
    text = (ROOT / "params" / f"{profile}.yaml").read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    commands = f"./run python -m foleylib.params paper && ./run python -m foleylib.params {profile} && ./run dvc repro"
    assert f"{commands} {PAPER_STAGES[profile]}" in head and re.search(r"Tables? [12I]", head)
    assert f"  {PAPER_STAGES[profile]}:" in (ROOT / "dvc.yaml").read_text().splitlines()


def test_clips_have_the_level_that_published_weights_heard(settings):
    """AudioLDM's code scales every clip to half of the full scale; no paper says so."""
    for name, own in settings.items():
        assert {corpus.peak for corpus in own.corpora.values()} == {0.5}, name


def test_clips_that_each_paper_trains_on_are_of_one_length(settings):
    assert at(settings["text_foley"], "corpora.foley.seconds") == 4.16  # 4 s, up to the next multiple of 0.32 s
    others = {name: own.corpus_of("foundation").seconds for name, own in settings.items() if name != "text_foley"}
    assert set(others.values()) == {10.24}


def test_the_checkpoint_is_that_of_the_paper(settings):
    named = {"latent_clap": "audioldm-m-full", "text_foley": "audioldm-s-full"}
    for profile, checkpoint in named.items():
        assert checkpoint in str(settings[profile].foundation.model_dump()), profile


def test_checkpoints_of_the_benchmark_are_among_those_of_its_table(settings):
    """Table II has its best scores at these thousands of steps."""
    every = settings["transfer"].transfer.every
    assert [k for k in (240, 160, 180, 80, 350, 20, 480) if k * 1000 % every] == []


def test_no_fold_is_on_two_sides(settings):
    for name, count in (("esc50", 5), ("urbansound8k", 10)):
        folds = settings["transfer"].corpora[name].folds
        used = [fold for own in folds.values() for fold in own]
        assert sorted(used) == list(range(1, count + 1)) and all(folds.values())

"""Settings that would give wrong numbers without a word: each is refused in one sentence that names its key."""

import math
import os
import re
import subprocess
import sys

import pytest
from test_params import changed, leaves, plain, refused

from foleylib import paths
from foleylib.params import experiment, profiles
from foleylib.params import settings as params
from foleylib.params.read import read_yaml
from foleylib.paths import ROOT

# Mappings whose keys are names or splits: true in one of them is told with the mapping, and what it holds.
FREE = ("clips_per_class", "scenes", "captions", "sampling", "weights", "clips", "best_of")


def numbers(kind):
    """The keys of params.yaml whose value is a number of a kind, but for those inside lists and free mappings."""
    return [where for where, value in leaves(plain()) if type(value) in kind]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "many"])
def test_what_is_no_number_is_refused_wherever_a_number_stands(value):
    told = {where: refused({where: value}) for where in numbers((int, float))}
    assert len(told) > 200
    for where, message in told.items():
        of_mapping = len(where) > 1 and where[-2] in FREE and f"{'.'.join(where[:-1])}: " in message
        assert re.search(rf"^- {re.escape('.'.join(where))}[.:]", message, re.MULTILINE) or of_mapping, message


@pytest.mark.parametrize("value", [-1, 10.5])
def test_a_count_is_no_part_and_not_below_nothing(value):
    fine = set()
    for where in numbers((int,)):
        try:
            params.parse(changed({where: value}))
            fine.add(where)
        except ValueError as error:
            assert where[-1] in str(error)
    # Weights, frequencies, seconds and learning rates are numbers, and jobs: -1 means all cores.
    assert not [where for where in fine if where[-1] in ("steps", "batch_size", "seed", "clips", "layers", "groups")]


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        ("corpora.foley.classes", [], "corpora.foley.classes"),
        ("corpora.foley.classes", ["DogBark", "DogBark"], "'DogBark' stands there twice; name each once"),
        ("corpora.scenes.held_out", ["Frog", "Frog"], "'Frog' stands there twice"),
        ("corpora", {}, "corpora: Dictionary should have at least 1 item"),
        (
            ("corpora", "../x"),
            plain()["corpora"]["foley"],
            "corpora.../x: '../x' is no plain name: give letters, digits",
        ),
        ("corpora.a b", plain()["corpora"]["foley"], "'a b' is no plain name"),
        (("runs", "NA"), plain()["runs"]["ldm"], "'NA' stands for no value in tables; give another name"),
        (("runs", "None"), plain()["runs"]["ldm"], "'None' stands for no value in tables"),
        ("corpora.foley.prompts", {"Rain": " "}, "corpora.foley.prompts.Rain: String should match pattern"),
        ("corpora.foley.prompt_template", "{", "corpora.foley.prompt_template: it must hold {label}, and no other"),
        ("corpora.foley.prompt_template", "{label:d}", "it must hold {label}, and no other field"),
        ("corpora.foley.prompt_template", "{label!x}", "it must hold {label}, and no other field"),
        ("corpora.foley.prompt_template", "a sound", "it must hold {label}, and no other field"),
        ("corpora.foley.jobs", 0, "corpora.foley.jobs"),
        ("corpora.foley.jobs", -2, "corpora.foley.jobs"),
        ("finetune.train.betas", [1.0, 0.999], "finetune.train.betas.0: Input should be less than 1"),
        (("corpora", ".hidden"), plain()["corpora"]["foley"], "'.hidden' is no plain name"),
        ("systems.x/y", {"corpus": "foley", "init": "ldm"}, "'x/y' is no plain name"),
        ("runs.x y", {"name": "x", "clips": {"made_from": "models/systems/ldm"}}, "'x y' is no plain name"),
        ("filters.é", {"name": "x", "select": {"of": "ldm"}}, "'é' is no plain name"),
        ("controls.a:b", {"name": "x", "source": "val"}, "'a:b' is no plain name"),
        ("foundation.sizes.ldm-x", {"channels": [32], "head_channels": 16}, "sizes.ldm-x: that is no name for a new"),
        ("re_audioldm.models.a/b", {"k": 2}, "'a/b' is no plain name"),
        ("re_audioldm.models.real", {"k": 2}, "models.real: that is the name of a row that no model makes"),
        ("finetune.seeds", [0, 1, 1], "finetune.seeds: 1 stands there twice"),
        ("finetune.seeds", [], "finetune.seeds"),
        ("systems.large.seeds", [4, 4], "systems.large.seeds: 4 stands there twice"),
        ("runs.ldm_ddim.clips.seeds", [0, 0], "runs.ldm_ddim.clips.seeds: 0 stands there twice"),
        ("lambda_sweep.lambdas", [0, 30, 30], "30.0 stands there twice"),
        ("lambda_sweep.tuning", [True, True], "lambda_sweep.tuning: True stands there twice"),
        ("transfer.corpora", ["foley", "foley"], "transfer.corpora: 'foley' stands there twice"),
        ("transfer.untuned", [], "transfer.untuned"),
        ("retrieval.corpora", ["scenes", "wide", "wide"], "retrieval.corpora: 'wide' stands there twice"),
        ("listening.runs", ["real", "real"], "listening.runs: 'real' stands there twice"),
        ("combined.rates", [16000, 16000], "combined.rates: 16000 stands there twice"),
        ("combined.rates", [], "combined.rates"),
        ("selection.shares", [1.0, 1.0], "selection.shares: 1.0 stands there twice"),
        ("targets.texts", {}, "targets.texts"),
        ("foundation.vae.channels", [], "foundation.vae.channels"),
        ("foundation.ldm.channels", [], "foundation.ldm.channels"),
        ("foundation.vocoder.periods", [], "foundation.vocoder.periods"),
        ("foundation.vocoder.periods", [2, 2], "foundation.vocoder.periods: 2 stands there twice"),
        ("foundation.vocoder.upsampling.kernels", [16, 11], "give one for each of rates [8, 5, 4]"),
        ("foundation.vocoder.upsampling.kernels", [16, 11, 2], "none of them smaller"),
        ("foundation.clap.audio.heads", [2, 4], "heads [2, 4]: give one number for each of depths [2, 2, 2]"),
        ("foundation.ldm.noise.beta_end", 0.001, "beta_start 0.0015 must lie below beta_end 0.001: noise is added"),
        ("judge.widths", [], "judge.widths"),
        ("sampling.steps", 5000, "sampling.steps 5000: the noise has 1000 (foundation.ldm.noise.steps); give no more"),
        (
            "runs.ldm_ddim.clips.sampling.steps",
            1001,
            "runs.ldm_ddim.clips.sampling.steps 1001: the noise has 1000 (foundation.ldm.noise.steps)",
        ),
        ("runs.ldm_ddim.clips.sampling.steps", True, "runs.ldm_ddim.clips.sampling: true and false are no numbers"),
        (
            "runs.ldm.tables",
            ["latent-clap-loss:I:LMD"],
            "tables of row ldm: 'latent-clap-loss:I:LMD' is none of those published; there are: latent-clap-loss:I:Real",
        ),
        (
            "controls.real.tables",
            ["clap:I:LDM"],
            "'clap:I:LDM' is none of those published; there are: audioldm-transfer",
        ),
        ("filters.ldm_filter.tables", ["latent-clap-loss:I:LDM"] * 2, "stands there twice"),
    ],
)
def test_what_would_change_the_meaning_without_a_word(where, value, sentence):
    assert sentence in refused({where: value})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"seed: 0\njobs: 2\nseed: 1\n", "line 3, column 1: the key 'seed' stands in line 1 already: take one"),
        (b"a: {b: 1, c: 2, b: 3}\n", "line 1, column 17: the key 'b' stands in line 1 already"),
        (b"seed: 0\n  jobs: 2\n", "line 2, column 7: mapping values are not allowed"),
        (b"seed: [0\n", "line 2, column 1: did not find expected ',' or ']'"),
        (b"seed: 'x\n", "line 2, column 1: found unexpected end of stream"),
        (b"seed: \xff\n", "byte 6 is no UTF-8; save the file in that encoding"),
        (b"seed: \x00\n", "control characters are not allowed"),
        (b"a: &x 1\nb: *y\n", "line 2, column 4: found undefined alias"),
        (b"a: !!python/object/apply:os.system ['true']\n", "line 1, column 4: could not determine a constructor"),
        (b"? [a]\n: 1\n", "line 1, column 3: found unhashable key"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(tmp_path, text, sentence):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text)
    for read in (read_yaml, params.load):
        with pytest.raises(ValueError) as error:
            read(file)
        assert str(error.value).startswith(f"{file}") and sentence in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    profile = tmp_path / "params"
    profile.mkdir()
    (profile / "own.yaml").write_bytes(text)
    (tmp_path / "params.yaml").write_bytes(before := (ROOT / "params.yaml").read_bytes())
    with pytest.raises(ValueError) as error:
        profiles.apply("own", params=tmp_path / "params.yaml")
    assert sentence in str(error.value) and (tmp_path / "params.yaml").read_bytes() == before


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match="there is no such file; give the path"):
        params.load(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ValueError, match=r"\(whole file\)"):
        params.load(tmp_path / "empty.yaml")


def test_a_quoted_number_is_one():
    """YAML 1.1 reads 1e-4 as text; it is taken for the number that it is."""
    assert params.parse(changed({"finetune.train.lr": "1e-4"})).finetune.train.lr == 1e-4


REPRO = ["dvc", "repro", "finetune@ldm"]
RUN = ["dvc", "exp", "run"]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([*RUN, "-S", "sampling.steps=5000"], "params.yaml with sampling.steps=5000 cannot be used:\n- (whole file)"),
        ([*RUN, "--set-param", "finetune.train.lr=-1"], "finetune.train.lr"),
        ([*RUN, "--set-param=finetune.train.lr=nan", "finetune@ldm"], "finetune.train.lr"),
        ([*RUN, "-Sfinetune.seeds=[0,0]"], "finetune.seeds: 0 stands there twice"),
        ([*RUN, "-S", "params.yaml:corpora.foley.rate=44100"], "corpora.foley.rate"),
        ([*RUN, "-S", "seed=1", "-S", "judge.corpus=none"], "judge.corpus is 'none'"),
        ([*RUN, "--queue", "-S", "sampling.steps=8,16,2000"], "with sampling.steps=2000 cannot be used"),
        ([*RUN, "-S", "+corpora.foley.colour=red"], "corpora.foley.colour: unknown key"),
        ([*RUN, "-S", "~judge.widths"], "judge.widths: missing"),
    ],
)
def test_what_an_experiment_sets_is_checked_before_dvc_starts(command, sentence):
    before = paths.PARAMS.read_bytes()
    with pytest.raises(ValueError) as error:
        experiment.check(command)
    assert sentence in str(error.value) and paths.PARAMS.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        REPRO,
        [*RUN, "-S", "sampling.steps=16", "evaluate"],
        [*RUN, "--queue", "-S", "sampling.steps=8,16"],
        [*RUN, "-S", "no.such.key=1"],  # these three DVC refuses itself
        [*RUN, "-S", "sampling.steps"],
        [*RUN, "-S", "a=[1"],
    ],
)
def test_what_is_fine_or_dvcs_own_to_refuse_passes(command):
    experiment.check(command)


def test_no_command_starts_with_settings_that_cannot_be_used(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("solver: dpm++", "solver: euler", 1))
    fake = tmp_path / "bin" / "dvc"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    fake.chmod(0o755)
    where = {"FOLEYLIB_ROOT": str(tmp_path), "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "warm_kernel.py"), "before", "dvc", "repro"]
    done = subprocess.run(command, env=os.environ | where, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "- sampling.solver: " in done.stderr and "no output was touched" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "ran").exists()
    (tmp_path / "params.yaml").write_text(text)
    subprocess.run(command, env=os.environ | where, check=True)
    assert (tmp_path / "ran").exists()

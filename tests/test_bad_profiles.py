"""Profiles and overrides that cannot be used: each is refused in a sentence that names the file or the key, and params.yaml
stays as it was, byte for byte."""

import shutil

import pytest

from foleylib import paths
from foleylib.params import experiment, profiles
from foleylib.paths import ROOT

NOTHING = "no settings there; write sections of params.yaml"
NAMES = "give a list with the names of the entries that go"
WHOLE = "give true, or leave it out to change single entries"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "params").mkdir()
    return folder


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        pytest.param("", f"mine.yaml: {NOTHING}", id="empty"),
        pytest.param("# seed: 1\n", f"mine.yaml: {NOTHING}", id="comments alone"),
        pytest.param("- seed: 1\n", f"mine.yaml: {NOTHING}", id="a list"),
        pytest.param("smoke\n", f"mine.yaml: {NOTHING}", id="a word"),
        pytest.param("seed: 1\nseed: 2\n", "mine.yaml, line 2, column 1: the key 'seed' stands in line 1", id="twice"),
        pytest.param(
            "systems: {remove: label}\n", f"params/mine.yaml: systems.remove is 'label'; {NAMES}", id="a name"
        ),
        pytest.param("systems: {remove: {label: 1}}\n", f"systems.remove is {{'label': 1}}; {NAMES}", id="a mapping"),
        pytest.param("systems: {remove: }\n", f"systems.remove is None; {NAMES}", id="remove nothing"),
        pytest.param("finetune: {train: {remove: [1]}}\n", f"finetune.train.remove is [1]; {NAMES}", id="a number"),
        pytest.param("remove: seed\n", f"params/mine.yaml: remove is 'seed'; {NAMES}", id="remove at the top"),
        pytest.param("filters: {replace: no}\n", f"mine.yaml: filters.replace is 'no'; {WHOLE}", id="no in YAML 1.2"),
        pytest.param("filters: {replace: 1}\n", f"filters.replace is 1; {WHOLE}", id="replace: 1"),
        pytest.param(
            "finetune: {train: {replace: }}\n", f"finetune.train.replace is None; {WHOLE}", id="replace: none"
        ),
        pytest.param("replace: true\n", "- replace: unknown key", id="replace at the top"),
        pytest.param("remove: [seed]\n", "- seed: missing", id="a section removed"),
        pytest.param("sytems: {ldm: {init: ldm}}\n", "- sytems: unknown key", id="a section misspelt"),
        pytest.param("finetune: {train: {step: 5}}\n", "- finetune.train.step: unknown key", id="a key misspelt"),
        pytest.param("finetune: 3\n", "- finetune: ", id="a number for a section"),
        pytest.param("finetune: {train: }\n", "- finetune.train: ", id="nothing for a section"),
        pytest.param("finetune: {seeds: 0}\n", "- finetune.seeds: ", id="a number for a list"),
        pytest.param("seed: [0]\n", "- seed: ", id="a list for a number"),
        pytest.param(
            "corpora: {foley: {replace: true, kind: esc50}}\n", "- corpora.foley.rate: missing", id="too little"
        ),
        pytest.param(
            "systems: {mine: {remove: [x]}}\n", "- systems.mine.remove: unknown key", id="remove in what is new"
        ),
        pytest.param("systems: {remove: [ldm]}\n", "selection.calibrate.text is 'ldm', which is none of", id="in use"),
        pytest.param(
            "runs: {remove: [ldm]}\n", "filters.ldm_filter.select.of is 'ldm', which is none", id="a run in use"
        ),
        pytest.param("evaluators: {mine: {kind: ears}}\n", "- evaluators.mine.kind: ", id="an unknown evaluator"),
    ],
)
def test_a_profile_that_cannot_be_used_leaves_the_file(folder, profile, sentence):
    (folder / "params/mine.yaml").write_text(profile)
    before = (folder / "params.yaml").read_bytes()
    with pytest.raises(ValueError) as error:
        profiles.apply("mine", params=folder / "params.yaml")
    assert sentence in str(error.value) and (folder / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["../params", "params/mine", "mine.yaml", "", ".", "/etc/passwd"])
def test_a_profile_is_the_name_of_a_file_of_params_alone(folder, name):
    (folder / "params/mine.yaml").write_text("seed: 1\n")
    before = (folder / "params.yaml").read_bytes()
    with pytest.raises(ValueError, match="there is no profile '.*'; params/ holds: mine$"):
        profiles.apply(name, params=folder / "params.yaml")
    assert (folder / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("finetune.seeds=[]", "- finetune.seeds: List should have at least 1 item"),
        ("finetune.seeds=3", "- finetune.seeds: Input should be a valid list (got 3)"),
        ("evaluate.embedders=[]", "embedders []: begin with judge, clap"),
        ("listening.runs=[]", "- listening.runs: List should have at least 2 items"),
        ("systems.latent.loss.lclap=-1", "- systems.latent.loss.lclap: "),
        ("systems.latent=null", "- systems.latent: "),
        ("+systems.new.corpus=foley", "- systems.new.init: missing"),
        ("~systems.ldm", "selection.calibrate.text is 'ldm', which is none of"),
        ("sampling.steps=true", "- sampling.steps: true and false are no numbers here"),
        ("foundation.ldm.channels=[]", "- foundation.ldm.channels: "),
        ("corpora.scenes.events=[3,1]", "events [3, 1]: give the least number of sounds first"),
        ("re_audioldm.buckets=[5,1]", "buckets [5, 1]: give them in rising order, from 0"),
        ("transfer.every=1000", "every 1000: give a divisor of steps 30"),
        ("selection.calibrate.text=nope", "selection.calibrate.text is 'nope', which is none of"),
    ],
)
def test_an_override_is_refused_before_dvc_starts(override, sentence):
    before = paths.PARAMS.read_bytes()
    with pytest.raises(ValueError) as error:
        experiment.check(["dvc", "exp", "run", "-S", override])
    assert sentence in str(error.value) and f"params.yaml with {override.split('=')[0]}=" in str(error.value)
    assert paths.PARAMS.read_bytes() == before

"""params.yaml stands in the form in which DVC writes it: what `-S` or a profile changes is all that changes in the file."""

import difflib
import re
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from foleylib.params import profiles
from foleylib.paths import ROOT


@pytest.fixture
def file(tmp_path):
    """A copy of params.yaml, beside the profiles."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def changes(file: Path, *overrides: str) -> tuple[list[str], list[str]]:
    """The lines that are no more in a file, and those that are new, after what `dvc exp run -S` does to it; without their
    comments."""
    before = file.read_text().splitlines()
    apply_overrides(file, overrides)
    lines = list(difflib.unified_diff(before, file.read_text().splitlines(), n=0, lineterm=""))[2:]
    return tuple([line[1:].split(" #")[0].strip() for line in lines if line[0] == sign] for sign in "-+")


def leaves(node, path=()):
    """(path, value) of everything in nested mappings that is no mapping."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def comments(file: Path) -> list[str]:
    return re.findall(r"(?<=\s)# .*|^# .*", file.read_text(), re.MULTILINE)


def test_dvc_writes_the_file_as_it_stands(file):
    before = file.read_text()
    apply_overrides(file, [])
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("override", "old", "new"),
    [
        ("seed=1", ["seed: 0"], ["seed: 1"]),
        ("finetune.train.lr=1.0e-5", ["lr: 5.0e-4"], ["lr: 1e-05"]),
        ("systems.latent.loss.lclap=500", ["{corpus: foley, init: ldm, loss: {lclap: 30}}"], ["{lclap: 500}}"]),
        ("finetune.lclap.s_n=clean", ["{s_n: noisy,"], ["{s_n: clean, reduction: mean, decay: 200}"]),
        ("sampling.solver=ddim", ["solver: dpm++"], ["solver: ddim"]),
        ("listening.by_class=false", ["by_class: true"], ["by_class: false"]),
        ("foundation.ldm.snr_gamma=null", ["snr_gamma: 5.0"], ["snr_gamma:"]),
        ("corpora.foley.root=/a/b", ["root:"], ["root: /a/b"]),
        ("targets.texts.Motor='a, b: c'", ["Motor: motor"], ["Motor: 'a, b: c'"]),
        ("runs.ldm.colour='#000000'", ["colour: '#0173b2'"], ["colour: '#000000'"]),
        ("finetune.seeds=[0,1]", ["- 2"], []),
        ("evaluate.embedders=[judge,clap,vggish]", [], ["- vggish"]),
        ("foundation.vocoder.train.betas=[0.9,0.99]", ["- 0.8"], ["- 0.9"]),
        ("systems.large.seeds=[0,1]", ["seeds: [0]}"], ["seeds: [0, 1]}"]),
        ("corpora.scenes.held_out=[]", ["held_out:", "- Helicopter", "- Frog", "- Saw"], ["held_out: []"]),
        ("sensitivity.excluded=[dog,rain]", ["excluded: []"], ["excluded:", "- dog", "- rain"]),
        ("runs.label.tables=[]", ["tables:", "- text-driven-foley:1:LDM-S+Pre"], ["tables: []"]),
        ("+selection.best_of.DogBark=3", ["best_of: {}"], ["best_of:", "DogBark: 3"]),
        ("+systems.latent.seeds=[0]", ["loss: {lclap: 30}}"], ["loss: {lclap: 30}, seeds: [0]}"]),
    ],
)
def test_an_override_changes_the_lines_of_its_value_alone(file, override, old, new):
    told = comments(file)
    gone, added = changes(file, override)
    assert len(gone) == len(old) and all(line.endswith(end) or end in line for line, end in zip(gone, old))
    assert len(added) == len(new) and all(line.endswith(end) for line, end in zip(added, new))
    assert comments(file) == told


def test_every_override_of_the_readme_changes_one_line(file):
    told = re.findall(r"dvc exp run.*? -S (\S+)", (ROOT / "README.md").read_text())
    assert len(told) >= 4
    for override in told:
        before = file.read_text()
        gone, added = changes(file, override)
        assert len(gone) == len(added) == 1, override
        file.write_text(before)


def test_no_comment_depends_on_a_value(file):
    """Every value is another one at once, lists are longer, empty or not: all comments are still there, and what was set."""
    told, values = comments(file), dict(leaves(yaml.safe_load(file.read_text())))
    for change in (lambda value: [*value, "x"], lambda value: []):
        with modify_yaml(file) as settings:
            wanted = {}
            for path, value in values.items():
                node = settings
                for key in path[:-1]:
                    node = node[key]
                wanted[path] = node[path[-1]] = change(value) if isinstance(value, list) else f"{value}x"
        assert dict(leaves(yaml.safe_load(file.read_text()))) == wanted and comments(file) == told


@pytest.mark.parametrize("names", [["smoke"], ["own"], ["foundation", "decoder"], ["paper", "transfer"]], ids=str)
def test_a_profile_keeps_the_form(file, names):
    safe = YAML(typ="safe")
    wanted = safe.load(file)
    for name in names:
        profiles.apply(name, params=file)
        profiles.merge(wanted, safe.load(ROOT / "params" / f"{name}.yaml"))
    before = file.read_text()
    assert safe.load(file) == wanted
    assert changes(file) == ([], []) and file.read_text() == before
    gone, added = changes(file, "seed=7", "finetune.train.steps=7")
    assert len(gone) == len(added) == 2

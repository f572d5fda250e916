"""What a run may be used for: licences from the clips and the weights to the card."""

import json

import pandas as pd
import pytest

from foleylib import paths
from foleylib.corpora.sources import LICENCES
from foleylib.datasets import manifest as manifests
from foleylib.stages import bundle, licences

AUDIOLDM = "CC BY-NC-SA 4.0"
NEVER, ALWAYS = "May not be used commercially", "Nothing that it was made from forbids commercial use"
ASK = "May be used commercially only where it is known that these allow it"


@pytest.fixture
def own(tiny, tiny_corpus, tiny_paths, tmp_path, monkeypatch):
    """Settings; models and clips in folders of the test's own, with the bundle's provenance beside the weights."""
    monkeypatch.setattr(paths, "FOUNDATION", tmp_path / "models" / "foundation")
    monkeypatch.setattr(paths, "LATENT_CLAP", tmp_path / "models" / "latent_clap")
    for part in ("clap", "vae", "vocoder", "ldm"):
        provenance(paths.FOUNDATION / part, corpus={"kind": "synthetic"})
    provenance(paths.LATENT_CLAP, licences={"CC BY 4.0": 3})
    return tiny


def provenance(folder, **told):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "provenance.json").write_text(json.dumps(told))


def published(**told):
    """Parts of a published checkpoint, with what `bundle.take` notes of them."""
    told = {"source": "hub", "from": "cvssp/audioldm-m-full", "revision": "c0ffee", "licence": None} | told
    for part in ("clap", "vae", "ldm"):
        (paths.FOUNDATION / part / "provenance.json").unlink(missing_ok=True)
        (paths.FOUNDATION / part / "published.json").write_text(json.dumps(told))


def with_licences(monkeypatch, *told):
    """Clips of the sampled corpus under other licences."""
    table = manifests.load(paths.CLIPS / "foley")
    table["licence"] = [told[i % len(told)] for i in range(len(table))]
    monkeypatch.setattr(manifests, "load", lambda out: table)


def test_licences_of_a_corpus(own, monkeypatch):
    n = len(manifests.load(paths.CLIPS / "foley"))
    assert manifests.licences(paths.CLIPS / "foley") == {manifests.SYNTHETIC: n}
    with_licences(monkeypatch, "b", "a", "b")
    told = manifests.licences(paths.CLIPS / "foley")
    assert list(told) == ["b", "a"] and sum(told.values()) == n


def test_synthetic_sounds_and_the_bundle_forbid_nothing(own):
    rows = licences.of_run("tuning", own)
    parts = ["clips of foley", *(f"weights of {part}" for part in ("clap", "ldm", "vae"))]
    assert rows == [{"part": part, "licence": "CC0-1.0"} for part in parts]
    assert licences.sentence(rows) == (
        "Nothing that it was made from forbids commercial use: clips of foley (CC0-1.0); "
        "weights of clap, ldm, vae (CC0-1.0)."
    )


def test_parts_are_those_that_the_clips_hang_on(own):
    def parts(run, cfg=own):
        return [row["part"].split(" of ")[1] for row in licences.of_run(run, cfg)]

    assert parts("real") == ["foley"] and parts("reconstruction") == ["foley", "vae"]
    assert parts("tuning_filter") == parts("tuning") and parts("tuning_latent") == [*parts("tuning"), "latent_clap"]
    vocoded = own.changed(sampling=own.sampling.changed(vocoder="hifigan"))
    assert parts("reconstruction", vocoded) == ["foley", "vae", "vocoder"]
    silent = own.changed(controls=own.model_dump()["controls"] | {"silence": {"name": "Silence", "source": "silence"}})
    assert licences.on_card("silence", silent)["use"] == "Nothing that it was made from forbids commercial use."
    scratch = {"tuning": own.systems["tuning"].changed(pretrained=False)}
    assert "ldm" not in parts("tuning", own.changed(systems=own.systems | scratch))
    run = own.runs["ldm"].changed(clips={"made_from": "models/foundation/ldm"})
    assert parts("base", own.changed(runs=own.runs | {"base": run.changed(name="Base")})) == ["clap", "ldm", "vae"]


def test_published_weights_forbid_commercial_use(own):
    published(**{"from": "data/raw/audioldm-m-full.ckpt"})
    use = licences.on_card("ldm", own)["use"]
    assert use == f"May not be used commercially: made from weights of clap, ldm, vae ({AUDIOLDM})."
    published(**{"from": "data/raw/mine"})
    use = licences.on_card("ldm", own)["use"]
    assert use.endswith("only where it is known that these allow it: weights of clap, ldm, vae (unknown).")


@pytest.mark.parametrize(
    ("name", "told", "licence"),
    [
        ("cvssp/audioldm-m-full", None, AUDIOLDM),
        ("cvssp/audioldm-m-full", "openrail", "openrail"),
        ("somebody/else", None, "unknown"),
    ],
)
def test_what_was_fetched_with_a_checkpoint_counts(own, name, told, licence):
    published(**{"from": name, "licence": told})
    assert [row["licence"] for row in licences.of_run("ldm", own)] == ["CC0-1.0", licence, licence, licence]


def test_what_goes_on_from_published_weights_has_their_licence_too(own):
    start = {"source": "hub", "from": "cvssp/audioldm-m-full", "licence": None}
    provenance(paths.FOUNDATION / "ldm", licences={"CC BY 4.0": 3}, start=start)
    rows = [row for row in licences.of_run("ldm", own) if row["part"] == "weights of ldm"]
    assert [row["licence"] for row in rows] == ["CC BY 4.0", AUDIOLDM]


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        ("CC BY-NC 3.0", NEVER),
        ("cc-by-nc-sa-4.0", NEVER),
        ("http://creativecommons.org/licenses/by-nc/3.0/", NEVER),
        ("academic use only (WavCaps); audio: the uploader's Creative Commons licence (freesound.org)", NEVER),
        ("labels: CC BY 4.0 (AudioSet, Google); audio: rights of the YouTube uploaders", NEVER),
        ("Attribution Noncommercial", NEVER),
        ("CC BY 3.0", ALWAYS),
        ("CC-BY-SA 4.0", ALWAYS),
        ("CC0-1.0", ALWAYS),
        ("http://creativecommons.org/licenses/by/4.0/", ALWAYS),
        ("http://creativecommons.org/publicdomain/zero/1.0/", ALWAYS),
        ("Apache-2.0", ALWAYS),
        ("MIT", ALWAYS),
        ("CC BY-ND 4.0", ASK),
        ("CC-Sampling+", ASK),
        ("openrail", ASK),
    ],
)
def test_what_a_licence_says_of_commercial_use(own, monkeypatch, licence, says):
    with_licences(monkeypatch, "CC BY 3.0", licence)
    use = licences.on_card("ldm", own)["use"]
    assert use.startswith(says) and f"clips of foley ({licence})" in use
    assert ("clips of foley (CC BY 3.0)" in use) == (says == ALWAYS)


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, permitted) in LICENCES.items() if not permitted and kind != "folder"]
)
def test_data_sets_that_forbid_commercial_use_forbid_it_for_a_run(own, monkeypatch, kind):
    with_licences(monkeypatch, LICENCES[kind][0])
    assert licences.on_card("ldm", own)["use"].startswith(NEVER)


def test_what_is_not_known_is_said(own, monkeypatch):
    with_licences(monkeypatch, "CC BY 3.0", "unknown", "")
    assert licences.on_card("real", own)["use"] == f"{ASK}: clips of foley (unknown)."


def test_weights_carry_the_licences_of_what_they_learned_from(own, monkeypatch):
    with_licences(monkeypatch, "CC BY-NC 3.0")
    history, folder = pd.DataFrame({"loss": [1.0]}), paths.FOUNDATION / "vae"
    start = {"corpus": {"kind": "synthetic"}}
    bundle.write_provenance(folder, own.foundation.vae, "foley", own, 1.0, history, start)
    noted = json.loads((folder / "provenance.json").read_text())
    assert list(noted["licences"]) == ["CC BY-NC 3.0"]
    rows = [row for row in licences.of_run("reconstruction", own) if row["part"] == "weights of vae"]
    assert [row["licence"] for row in rows] == ["CC BY-NC 3.0", "CC0-1.0"]
    provenance(folder, corpus={"kind": "folder"})  # of an earlier version, which noted none
    assert licences.of_run("reconstruction", own)[-1]["licence"] == "unknown"


def test_every_kind_of_evaluator_has_its_licence(own):
    from typing import get_args

    from foleylib.params.runs import Evaluator

    assert set(licences.EVALUATORS) == set(get_args(Evaluator.model_fields["kind"].annotation))


def test_rows_that_are_alike_share_a_sentence(own):
    cards = {run: {"licences": licences.on_card(run, own)} for run in ("ldm", "tuning", "real")}
    assert list(licences.uses(cards).values()) == [["ldm", "tuning"], ["real"]]

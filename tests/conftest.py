"""Fixtures shared by the test modules."""

import gzip
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes; said before numpy and torch are loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"
RESTORED = {  # what the tests of stages need beside the rows of the smoke graph
    "systems": ["tuning_latent", "large"],
    "runs": ["tuning_latent", "large"],
    "filters": ["ldm_filter"],
}

ON_THE_SMOKE_GRAPH = ("test_graph", "test_notebooks")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file stay in one process, those of both files on the smoke graph in the same."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "graph" if Path(file).stem in ON_THE_SMOKE_GRAPH else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared():
    """Folder beside the repository, with real recordings in data/."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}: the real recordings are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def draw_weights():
    """Weight recipe of the golden data: rows [key, shape, kind, a, b] and a seed to a dict of arrays."""

    def draw(rows, seed):
        rng, weights = np.random.RandomState(seed), {}
        for key, shape, kind, a, b in rows:
            if kind == "const":
                weights[key] = np.full(shape, a)
            elif kind != "fixed":
                x = rng.standard_normal(tuple(shape))
                x = np.abs(x) if kind == "abs" else x
                weights[key] = np.asarray(a + b * x, dtype=np.float32)
        return weights

    return draw


@pytest.fixture(scope="session")
def golden():
    """Golden case by name: namespace of manifest, inputs, outputs and rows (empty where the case has none)."""

    def arrays(*paths):
        return {name: value for path in filter(None, paths) for name, value in np.load(GOLDEN / path).items()}

    def case(name):
        file = GOLDEN / "cases" / f"{name}.json"
        if not file.is_file():
            pytest.skip(f"golden case {name} is not in tests/golden: it is too large for the repository")
        manifest = json.loads(file.read_text())
        inputs, outputs = arrays(manifest.get("uses"), manifest.get("input")), arrays(manifest.get("output"))
        keys = manifest.get("keys")
        rows = json.loads(gzip.decompress((GOLDEN / keys).read_bytes())) if keys else []
        return SimpleNamespace(manifest=manifest, inputs=inputs, outputs=outputs, rows=rows)

    return case


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A `loopback_hub.Hub` of the empty folder `hub.root`, which the Hub's client of this process asks."""
    import loopback_hub

    (tmp_path / "hub").mkdir()
    with loopback_hub.serving(tmp_path / "hub") as server:
        loopback_hub.point_client_at(server.url, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture(scope="module")
def miniature(golden, draw_weights, tmp_path_factory):
    """A whole original AudioLDM file of the small golden cases: see `published_files.miniature`."""
    import published_files

    return published_files.miniature(golden, draw_weights, tmp_path_factory.mktemp("miniature"))


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A project root of the repository's params.yaml with the smoke profile, smaller still: two classes of 0.64 s."""
    import shutil

    import yaml

    from foleylib.params import profiles

    root, repository = tmp_path_factory.mktemp("project"), Path(__file__).resolve().parents[1]
    shutil.copytree(repository / "params", root / "params")
    shutil.copy(repository / "params.yaml", root)
    profiles.apply("smoke", params=root / "params.yaml")
    settings = yaml.safe_load((root / "params.yaml").read_text())
    default = yaml.safe_load((repository / "params.yaml").read_text())
    for section, names in RESTORED.items():
        settings[section] = {k: v for k, v in default[section].items() if k in (*settings[section], *names)}
    settings["listening"]["runs"] = default["listening"]["runs"]
    for corpus in settings["corpora"].values():
        corpus |= {"seconds": 0.64, "classes": ["DogBark", "Rain"], "jobs": 1}
        corpus["clips_per_class"] = {"train": 4, "val": 2, "test": 4}
    clap = settings["foundation"]["clap"]
    clap |= {"dim": 48, "text": {"vocabulary": 300, "hidden": 16, "layers": 1, "heads": 2, "max_tokens": 40}}
    clap["audio"] |= {"seconds": 0.32, "width": 8, "depths": [1, 1], "heads": [1, 2]}
    settings["judge"] |= {"corpus": "foley", "widths": [4, 8], "embedding_dim": 8}
    settings["selection"] |= {"relax_after": 3, "relax_by": 0.05, "cap": 2}
    settings["device"] = "cpu"
    (root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return root


@pytest.fixture(scope="session")
def tiny(tiny_root):
    """Settings of `tiny_root`."""
    from foleylib.params import settings

    return settings.load(tiny_root / "params.yaml")


@pytest.fixture(scope="session")
def tiny_corpus(tiny, tiny_root):
    """Folder of a prepared corpus: 4 + 2 + 4 clips each of two classes."""
    from foleylib.corpora.prepare import prepare

    prepare("foley", tiny.corpora["foley"], tiny_root / "data" / "clips" / "foley")
    return tiny_root / "data" / "clips" / "foley"


@pytest.fixture(scope="session")
def tiny_parts(tiny):
    """Untrained parts of a pipeline, in eval mode: clap, vae, vocoder, unet. Tests do not change them."""
    from foleylib.networks import clap, unet, vae, vocoder

    sizes, rate = tiny.foundation, tiny.corpus_of("foundation").rate
    autoencoder = vae.build(sizes.vae.channels, sizes.vae.layers, sizes.vae.latent_channels, sizes.vae.groups, seed=0)
    autoencoder.register_to_config(scaling_factor=0.7)
    parts = {
        "clap": clap.build(
            sizes.clap,
            ["a big dog barks twice, far away", "steady rain on a tin roof, indoors", "the bark of a dog"],
            seed=0,
        ),
        "vae": autoencoder,
        "vocoder": vocoder.generator(vocoder.generator_config(rate, channels=sizes.vocoder.channels), seed=0),
        "unet": unet.new(sizes.ldm, dim=sizes.clap.dim, latent_channels=sizes.vae.latent_channels, seed=0),
    }
    return SimpleNamespace(**{name: part.eval() for name, part in parts.items()})


@pytest.fixture(scope="session")
def tiny_models(tiny, tiny_root, tiny_parts):
    """Folder models/foundation of `tiny_root`, filled from `tiny_parts`."""
    from foleylib.networks import vocoder
    from foleylib.stages.ldm import save_with_parts

    out = tiny_root / "models" / "foundation"
    tiny_parts.clap.save(out / "clap")
    tiny_parts.vae.save_pretrained(out / "vae")
    vocoder.save(tiny_parts.vocoder, out / "vocoder")
    frozen = {name: getattr(tiny_parts, name) for name in ("clap", "vae", "vocoder")}
    for ldm in tiny.foundation.ldms:
        save_with_parts(out / ldm, tiny_parts.unet, tiny, frozen)
    return out


@pytest.fixture
def tiny_paths(tiny_root):
    """`foleylib.paths` with everything under `tiny_root` while a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        yield inside(tiny_root, patch)


@pytest.fixture(scope="module")
def tiny_paths_module(tiny_root):
    """`tiny_paths` for a whole module, whose fixtures train and sample there."""
    with pytest.MonkeyPatch.context() as patch:
        yield inside(tiny_root, patch)


@pytest.fixture(scope="module")
def no_models_of_the_graph(tmp_path_factory):
    """The bundled parts, whatever was made here."""
    from foleylib import paths

    with pytest.MonkeyPatch.context() as patch:
        for name in ("FOUNDATION", "JUDGE", "MODELS"):
            patch.setattr(paths, name, tmp_path_factory.getbasetemp() / "none")
        yield


def inside(root, patch):
    """Everything of `foleylib.paths` under another root."""
    from foleylib import paths

    below = {name: path.relative_to(paths.ROOT) for name, path in vars(paths).items() if isinstance(path, Path)}
    for name, path in below.items():
        patch.setattr(paths, name, root / path)
    return paths


def furnish(paths, tiny_models):
    """Put the tiny foundation and an untrained judge where a project has them."""
    import shutil

    from foleylib.networks import judge

    shutil.copytree(tiny_models, paths.FOUNDATION)
    network = judge.build(["DogBark", "Rain"], rate=16000, widths=(4, 8), embedding_dim=8, seed=0)
    network.save_pretrained(paths.JUDGE)


@pytest.fixture(scope="module")
def project(tiny, tiny_root, tiny_corpus, tiny_models, tiny_paths_module):
    """The tiny project with features, judge and Latent CLAP encoder, the systems `ldm` and `tuning` trained, sampled
    and scored."""
    from foleylib.networks import judge, latent_clap
    from foleylib.stages import evaluate, features, finetune, sample
    from foleylib.stages.embedders import Embedders

    if not (tiny_root / "data" / "embeddings").is_dir():  # once a session
        judge.build(["DogBark", "Rain"], rate=16000, widths=(4, 8), embedding_dim=8, seed=0).save_pretrained(
            tiny_root / "models" / "judge"
        )
        features.make("foley", tiny)
        config = latent_clap.LatentClapConfig(widths=(4, 4, 8, 8), dim=48, scale=0.7)
        latent_clap.build(config, seed=0).save_pretrained(tiny_root / "models" / "latent_clap")
        for name in ("ldm", "tuning"):
            finetune.make(name, tiny)
            sample.make(name, tiny)
        evaluate.evaluate(["ldm", "tuning"], tiny, Embedders(tiny))
    return tiny_root


@pytest.fixture(scope="module")
def scenes(tiny, tiny_models, tmp_path_factory):
    """Settings of a project of its own whose corpus "scenes" has features, neighbours and tokens; pre-training of
    re-audioldm is yet to come."""
    from foleylib.networks import detector
    from foleylib.stages import corpora, features, retrieval_index, tokens

    root, own = tmp_path_factory.mktemp("scenes"), tiny.model_dump()
    for corpus in own["corpora"].values():
        corpus["seconds"] = 0.96
    own["corpora"]["scenes"] |= {"clips_per_class": None, "classes": ["DogBark", "Rain", "Bell"], "held_out": ["Bell"]}
    own["corpora"]["scenes"] |= {"events": [1, 2], "scenes": {"train": 8, "val": 3, "test": 8}, "captions": {"test": 3}}
    own["retrieval"]["search"] |= {"top": 4, "duplicate": 1.0}
    own["retrieval"]["tokens"]["length"] = 6
    own["finetune"] |= {"seeds": [0]}
    own["finetune"]["train"] |= {"steps": 2, "batch_size": 4, "validate_every": 2, "checkpoint_every": 1}
    own["sampling"] |= {"steps": 2, "batch_size": 8}
    paper = own["re_audioldm"]
    paper["pretrained"] |= {"source": "scratch", "channels": [8, 8, 16, 16], "head_channels": 8, "groups": 4}
    paper["pretrained"]["retrieval"] |= {"k": 2, "width": 8}
    paper["pretrained"]["train"] |= {"steps": 4, "batch_size": 4, "validate_every": 4, "checkpoint_every": 2}
    paper |= {"seeds": [0, 1], "steps": 2, "clips": 4, "captions": 3}
    paper["models"] = {"none": None, "sound": {"text": False, "k": 1}, "both": {"k": 2}}
    cfg = type(tiny).model_validate(own)
    with pytest.MonkeyPatch.context() as patch:
        paths = inside(root, patch)
        furnish(paths, tiny_models)
        network = detector.build(["Bell", "DogBark", "Rain"], rate=16000, widths=(4, 8), seed=0)
        network.thresholds.fill_(0.45)
        network.save_pretrained(paths.DETECTOR)
        corpora.make("scenes", cfg)
        for stage in (features, retrieval_index, tokens):
            stage.make("scenes", cfg)
        yield cfg


@pytest.fixture(scope="module")
def wide(tiny, tiny_models, tmp_path_factory):
    """Settings of a project of its own whose corpus "wide" has features at 16 and 48 kHz, neighbours and tokens, and what
    re-audioldm's models start from; pre-training of src-gaudio is yet to come."""
    from foleylib.networks import latent_clap, rates, retrieval
    from foleylib.stages import corpora, features, neighbours, retrieval_index, tokens

    root, own = tmp_path_factory.mktemp("wide"), tiny.model_dump()
    own["retrieval"]["search"] |= {"top": 4, "duplicate": 1.0}
    own["retrieval"]["tokens"]["length"] = 6
    own["finetune"]["train"] |= {"steps": 2, "batch_size": 4, "validate_every": 2, "checkpoint_every": 1}
    own["sampling"] |= {"steps": 2, "batch_size": 8}
    own["foundation"]["vocoder"] |= {"segment": 3200}
    own["src_gaudio"]["pretrained"] |= {"channels": [8, 8, 16, 16], "head_channels": 8, "groups": 4}
    own["src_gaudio"]["pretrained"]["train"] |= {
        "steps": 4,
        "batch_size": 4,
        "validate_every": 2,
        "checkpoint_every": 2,
    }
    own["src_gaudio"]["train"] |= {"steps": 2, "batch_size": 4, "validate_every": 2}
    own["src_gaudio"] |= {"seeds": [0, 1], "clips": 4}
    own["combined"] |= {"seeds": [0, 1], "steps": 2, "clips": 4, "rates": [48000]}
    own["combined"]["reads"] |= {"k": 2}
    own["re_audioldm"]["pretrained"]["retrieval"] |= {"k": 2, "width": 8}
    cfg = type(tiny).model_validate(own)
    with pytest.MonkeyPatch.context() as patch:
        paths = inside(root, patch)
        furnish(paths, tiny_models)
        config = latent_clap.LatentClapConfig(widths=(4, 4, 8, 8), dim=48, scale=0.7)
        latent_clap.build(config, seed=0).save_pretrained(paths.LATENT_CLAP)
        corpora.make("wide", cfg)
        for stage in (features, retrieval_index, tokens):
            stage.make("wide", cfg)
        sizes = neighbours.channels("wide", cfg.combined.reads)
        start = {"channels": [8, 8, 16, 16], "head_channels": 8, "layers": 1, "groups": 4, "dim": 48}
        rates.save_unet(retrieval.build(**start, **sizes, width=8), paths.RE_AUDIOLDM)
        yield cfg


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, in which pages are tried as a reader opens them."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("FOLEYLIB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium on the PATH: install it, or set FOLEYLIB_CHROMIUM to its path")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]
    with playwright.sync_playwright() as api:
        yield api.chromium.launch(executable_path=path, args=flags)

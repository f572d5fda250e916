"""Work that is killed and goes on: the same bytes as without the kill."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_corpora import corpus

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.corpora import prepare
from foleylib.datasets import features as cached
from foleylib.datasets import manifest as manifests
from foleylib.datasets.resumable import Resumable
from foleylib.networks import clap, vae
from foleylib.stages import features

pytestmark = pytest.mark.slow

WRITES = 36  # of the features below: a batch of texts, 5 shards of three arrays, 10 batches of two


@pytest.fixture(scope="module")
def said(tiny_corpus, tmp_path_factory):
    """The tiny corpus with up to three captions a clip."""
    folder = shutil.copytree(tiny_corpus, tmp_path_factory.mktemp("said") / "corpus")
    ids = manifests.load(folder).id
    manifests.write_captions(
        folder, {id: [f"sound {i}", "noise", f"take {i}"][: 1 + i % 3] for i, id in enumerate(ids)}
    )
    return folder


def compute(corpus, out, models):
    features.SHARD = 4
    loaded = {"autoencoder": vae.load(models / "vae"), "clap": clap.load(models / "clap")}
    how = {"log_mels": [front_end(16000, "dataset")], "rate": 16000, "models": "m", "batch_size": 2, "device": "cpu"}
    features.compute(corpus, out, **loaded, **how)


def compute_and_be_killed(corpus, out, models, after):
    """`compute` in this process, which is killed while it writes for the time `after`."""
    write, count = Resumable.write, 0

    def killing(self, name, start, values, total):
        nonlocal count
        count += 1
        if count > int(after):
            write(self, name, start, np.zeros_like(values), total)
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, name, start, values, total)

    Resumable.write = killing
    compute(Path(corpus), Path(out), Path(models))


def prepare_and_be_killed(out, after):
    """Prepare a corpus of 20 clips in shards of 3 in this process, which is killed before clip number `after`."""
    make, count = prepare.make_clips, 0

    def killing(records, *more):
        nonlocal count
        rows = []
        for record in records:
            count += 1
            if count > after:
                os.kill(os.getpid(), signal.SIGKILL)
            rows += make([record], *more)
        return rows

    prepare.make_clips = killing
    prepared(out)


def prepared(out):
    prepare.SHARD, prepare.BATCH = 3, 2
    scenes = {"classes": ["Rain", "Bell", "DogBark"], "scenes": {"train": 8}, "seconds": 1.0}
    return prepare.prepare("s", corpus("synthetic", clips_per_class={"train": 4}, **scenes), Path(out))


def killed(call):
    """Run a call of this module in another process, which must be killed."""
    where = {"cwd": Path(__file__).parent, "env": os.environ | {"PYTHONPATH": str(paths.ROOT)}}
    command = [sys.executable, "-c", f"from test_resume import *; {call}"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, **where)
    assert process.returncode == -signal.SIGKILL, process.stderr


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def shards():
    """`features.SHARD`, which `compute` sets, is what it was after these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "SHARD", features.SHARD)
        yield


@pytest.fixture(scope="module")
def unbroken(said, tiny_models, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "features"
    compute(said, out, tiny_models)
    return files(out)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_after_a_kill_are_the_same(said, tiny_models, unbroken, tmp_path, monkeypatch, seed):
    after, out = int(np.random.default_rng(seed).integers(1, WRITES)), tmp_path / "features"
    killed(f"compute_and_be_killed(*{(str(said), str(out), str(tiny_models), after)!r})")
    assert [path.name for path in tmp_path.iterdir()] == [".features.part"]

    written, write = [], Resumable.write
    monkeypatch.setattr(Resumable, "write", lambda self, *args: (written.append(args[0]), write(self, *args)))
    compute(said, out, tiny_models)
    assert len(written) <= WRITES - after + 11, f"after {after} writes"  # what came after the last commit is made anew
    assert files(out) == unbroken and [path.name for path in tmp_path.iterdir()] == ["features"]
    assert cached.load(out)[1]["captions"].shape[:2] == (20, 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_corpus_after_a_kill_is_the_same(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(prepare, "SHARD", 3), monkeypatch.setattr(prepare, "BATCH", 2)
    after, made, make = int(np.random.default_rng(seed).integers(4, 20)), [], prepare.make_clips
    prepared(tmp_path / "unbroken")
    killed(f"prepare_and_be_killed({str(tmp_path / 'out')!r}, {after})")
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.part").is_dir()

    monkeypatch.setattr(prepare, "make_clips", lambda records, *more: made.extend(records) or make(records, *more))
    prepared(tmp_path / "out")
    assert len(made) == 20 - after // 3 * 3, f"after {after} clips"  # a shard that was begun is made anew
    assert files(tmp_path / "out") == files(tmp_path / "unbroken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "unbroken"]


def test_what_other_inputs_left_is_not_gone_on_with(tmp_path):
    one = Resumable(tmp_path / "work", {"key": 1})
    one.write("x", 0, np.ones((2, 3)), 4)
    one.commit(rows=2)
    again = Resumable(tmp_path / "work", {"key": 1})
    assert again.done("rows") == 2 and again.read("x", np.array([1, 3])).tolist() == [[1, 1, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"x.npy: rows 3 to 5 of float64 \(3,\) do not fit into float64 \(4, 3\)"):
        again.write("x", 3, np.ones((2, 3)), 4)
    other = Resumable(tmp_path / "work", {"key": 2})
    assert other.done("rows") == 0 and not (tmp_path / "work" / "x.npy").exists()
    other.forget()
    assert not (tmp_path / "work").exists()

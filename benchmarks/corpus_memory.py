"""Peak resident memory of `corpora.prepare`, the audit and the features of a corpus, by its number of clips.

./run python -m benchmarks.corpus_memory
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import soundfile
import torch

from benchmarks import timing
from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.corpora.audit import audit
from foleylib.corpora.prepare import prepare
from foleylib.networks import clap, vae
from foleylib.params.corpora import Corpus
from foleylib.params.foundation import ClapAudio, ClapText
from foleylib.runtime import write_csv, write_json
from foleylib.stages import features

RATE, SECONDS, CAPTIONS = 16000, 1.28, 3  # recordings of 1 s are repeated to a length that the VAE halves twice
TEXT = {"vocabulary": 400, "hidden": 16, "layers": 1, "heads": 2, "max_tokens": 40}
AUDIO = {"n_mels": 64, "spec_size": 64, "n_fft": 1024, "hop": 340, "fmin": 50, "fmax": 8000, "rate": RATE}
AUDIO |= {"seconds": 0.32, "width": 8, "depths": [1, 1], "heads": [1, 2], "window": 4}


def make_source(root: Path, clips: int) -> None:
    """Recordings of 1 s at 16 kHz, a burst of noise each, and a table with three captions a clip."""
    root.mkdir(parents=True)
    lines = [",".join(["path", "split", *(f"caption_{i}" for i in range(CAPTIONS))])]
    for number in range(clips):
        rng = np.random.default_rng(number)
        wave = np.zeros(RATE, dtype=np.float32)
        start, length = rng.integers(0, RATE // 2), rng.integers(RATE // 20, RATE // 2)
        wave[start : start + length] = 0.1 * rng.standard_normal(length) * np.exp(-np.arange(length) / 2000)
        soundfile.write(root / f"{number:06d}.wav", wave, RATE, subtype="PCM_16")
        said = [f"burst {number} of noise{' and then nothing' * i}" for i in range(CAPTIONS)]
        lines.append(",".join([f"{number:06d}.wav", "train", *said]))
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")


def work(part: str, folder: Path):
    """What is measured of a part, a call without arguments; models are made before."""
    source, out = folder / "source", folder / "corpus"
    if part == "prepare":
        how = {"rate": RATE, "seconds": SECONDS, "padding": "dataset"}
        settings = Corpus(kind="folder", root=str(source), jobs=1, **how)
        return lambda: prepare("benchmark", settings, out)
    if part == "audit":
        return lambda: audit(out)
    sizes = SimpleNamespace(dim=64, text=ClapText(**TEXT), audio=ClapAudio(**AUDIO))
    models = {
        "autoencoder": vae.build([8, 8, 8], 1, 8, 4, seed=0),
        "clap": clap.build(sizes, ["burst 0 of noise and then nothing"], seed=0),
    }
    how = {"log_mels": [front_end(RATE, "dataset")], "rate": RATE, "models": "random", "batch_size": 32}
    return lambda: features.compute(out, folder / "features", device="cpu", **models, **how)


def measure(part: str, folder: Path) -> dict[str, float]:
    """Seconds of a part in this process, and bytes of resident memory before it and at most."""
    do = work(part, folder)
    before, begin = timing.resident("VmRSS"), time.perf_counter()
    do()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory_before": before, "memory": timing.resident("VmHWM")}


def in_a_process(part: str, folder: Path) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.corpus_memory", "--measure", part, str(folder)]
    where = {"cwd": paths.ROOT, "env": os.environ | {"PYTHONPATH": str(paths.ROOT)}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **where)
    if done.returncode:
        raise RuntimeError(f"{part} in {folder} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(sizes: list[int]) -> pd.DataFrame:
    """A row a part and number of clips; "taken" is the peak over what libraries and models
    hold before, "growth" the peak by that of the first number of clips."""
    rows = []
    for clips in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            make_source(Path(scratch) / "source", clips)
            for part in ("prepare", "audit", "features"):
                rows.append({"part": part, "clips": clips, **in_a_process(part, Path(scratch))})
    table = pd.DataFrame(rows).sort_values("part", kind="stable", ignore_index=True)
    table["clips_per_second"] = table.clips / table.seconds
    table["taken"] = table.memory - table.memory_before
    table["growth"] = table.memory / table.groupby("part").memory.transform("first")
    return table


def main(argv: list[str] | None = None) -> Path | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10000], help="sizes of the corpora")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    if arguments.measure:
        part, folder = arguments.measure
        print(json.dumps(measure(part, Path(folder))))
        return None
    machine, table = timing.environment(torch.device("cpu")), compare(arguments.clips)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    write_csv(table, arguments.out / "corpus_memory.csv")
    content = {"benchmark": "corpus_memory", "settings": {"clips": arguments.clips}, "environment": machine}
    rows = json.loads(table.to_json(orient="records", double_precision=15))
    return write_json(arguments.out / "corpus_memory.json", content | {"rows": rows})


if __name__ == "__main__":
    main()

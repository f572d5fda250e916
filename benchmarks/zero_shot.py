"""Zero-shot accuracy of the foundation's CLAP on the real recordings of profile `real`, which it never heard.

./run python -m benchmarks.zero_shot
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import torch

from benchmarks import timing
from foleylib import paths
from foleylib.corpora.prepare import prepare
from foleylib.corpora.synth import captions, render
from foleylib.datasets import manifest as manifests
from foleylib.networks import clap
from foleylib.params import profiles, settings
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, weights_sha256, write_csv
from foleylib.stages.clap import retrieval_accuracy

# Classes of ESC-10 that the synthetic corpus has, by its names; the other five it has not.
ESC10 = {
    "dog": "DogBark",
    "rain": "Rain",
    "sneezing": "Sneeze_Cough",
    "clock_tick": "ClockTick",
    "helicopter": "Helicopter",
}


def measure(model: clap.Clap, cfg: Params) -> pd.DataFrame:
    """A row for all recordings of a corpus and for each class: share of clips nearest to the prompt of their own class.

    The prompts are those of the synthetic classes; a clip chooses among the classes that its corpus shares with them.
    """
    rows = []
    for corpus in ("foley", "broad"):
        with tempfile.TemporaryDirectory() as folder:
            prepare(corpus, cfg.corpora[corpus], Path(folder) / corpus)
            manifest = manifests.load(Path(folder) / corpus)
            manifest = manifest.assign(label=manifest.label.map(lambda label: ESC10.get(label, label)))
            known = manifest[manifest.label.isin(render.BROAD)].reset_index(drop=True)
            waves = manifests.Waves(Path(folder) / corpus, known)[range(len(known))]
        classes = sorted(known.label.unique())
        audio = model.embed_audio(waves, cfg.corpora[corpus].rate).cpu()
        text = model.embed_text([captions.prompt(label) for label in classes]).cpu()
        for label in ("all", *classes):
            own = torch.tensor(known.label.isin(classes if label == "all" else [label]).to_list())
            targets = torch.tensor([classes.index(own_label) for own_label in known.label[own.tolist()]])
            accuracy = retrieval_accuracy(audio[own], text, targets)
            row = {"recordings": cfg.corpora[corpus].kind, "class": label, "clips": int(own.sum())}
            rows.append(row | {"accuracy": accuracy, "chance": 1 / len(classes)})
    return pd.DataFrame(rows)


def real_recordings() -> Params:
    """The settings with profile `real` applied, whatever params.yaml has at present."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(paths.PARAMS, folder)
        shutil.copytree(paths.ROOT / "params", Path(folder) / "params")
        profiles.apply("real", params=Path(folder) / paths.PARAMS.name)
        return settings.load(Path(folder) / paths.PARAMS.name)


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clap", type=Path, default=paths.FOUNDATION / "clap", help="folder of the CLAP")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    cfg = real_recordings()
    table = measure(clap.load(arguments.clap, pick_device(cfg.device)), cfg)
    print(table.round(3).to_string(index=False))
    table["weights_sha256"] = weights_sha256(arguments.clap / "model.safetensors")
    return write_csv(table, arguments.out / "zero_shot.csv")


if __name__ == "__main__":
    main()

"""What laion_clap makes of random weights, in a process of its own: python laion_reference.py FOLDER, with HF_HUB_CACHE set.

FOLDER holds clips.npy [shape=(2, T)] at 48 kHz and texts.json. Written there: random weights in the format of LAION's files,
"with_ids.pt" and, as newer versions of transformers save them, "without_ids.pt"; "authors.npz", embeddings by the authors'
code as it is; "ours.npz", by the same code as `networks.published.laion` calls it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from foleylib.networks.published import laion


def random_weights(module):
    """Its state dict, with statistics of batch norms as if it were trained."""
    draws = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(-30, 5, generator=draws)
            layer.running_var.uniform_(100, 400, generator=draws)
    return module.state_dict()


def main(folder):
    with laion._offline():
        from laion_clap import CLAP_Module

        torch.manual_seed(0)
        authors = CLAP_Module(enable_fusion=False, device="cpu", amodel="HTSAT-tiny")
    state = {f"module.{key}": value for key, value in random_weights(authors.model).items()}
    more = {"epoch": 3, "name": "run", "val": {"loss": np.float64(0.5)}}
    torch.save({**more, "state_dict": state}, folder / "without_ids.pt")
    ids = {f"module.{laion.POSITIONS}": torch.arange(514)[None]}
    torch.save({**more, "state_dict": state | ids}, folder / "with_ids.pt")
    clips, texts = np.load(folder / "clips.npy"), json.loads((folder / "texts.json").read_text())
    authors.load_ckpt(str(folder / "with_ids.pt"), verbose=False)
    audio = authors.get_audio_embedding_from_data(clips[:, : laion.SAMPLES])
    short = authors.get_audio_embedding_from_data(clips[:1, :170000])  # repeated to 10 s
    np.savez(folder / "authors.npz", audio=audio, short=short, text=authors.get_text_embedding(texts))
    found = {}
    for name in ("with_ids", "without_ids"):
        model = laion.load(folder / f"{name}.pt", through="laion_clap")
        found[f"{name}.audio"] = model(torch.from_numpy(clips))["embedding"].numpy()
        found[f"{name}.text"] = model.embed_text(texts).numpy()
    np.savez(folder / "ours.npz", **found, path_is_clean=not any(entry.endswith("laion_clap") for entry in sys.path))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

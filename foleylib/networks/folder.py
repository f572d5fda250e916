"""Networks of our own as folders of config.json and model.safetensors, by way of huggingface_hub's mixin."""

import contextlib
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin

from foleylib.runtime import finite, read_object, told_of


class FolderMixin(PyTorchModelHubMixin):
    """`save_pretrained` without the mixin's model card, and a strict `from_folder` that never asks the Hub."""

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        super().save_pretrained(folder, **options)
        (Path(folder) / "README.md").unlink(missing_ok=True)

    @classmethod
    def from_folder(cls, folder: str | Path, *, stage: str) -> Self:
        """The network of a folder that `stage` wrote, in evaluation mode."""
        if not all((Path(folder) / name).is_file() for name in ("config.json", "model.safetensors")):
            raise ValueError(f"{folder}: no config.json with model.safetensors; run the {stage} stage first")
        remedy = f"run the {stage} stage again"
        given = read_object(Path(folder) / "config.json", remedy=remedy)
        with contextlib.redirect_stdout(None), told_of(folder, remedy):  # the mixin prints a line
            model = cls.from_pretrained(folder, strict=True)
        known = model._hub_mixin_config
        odd = given.keys() ^ (asdict(known) if is_dataclass(known) else known).keys()
        if odd:  # a default would stand for a key that is missing, and an unknown one would be left out
            raise ValueError(f"{folder}/config.json: '{min(odd)}' is missing or unknown; {remedy}")
        return finite(model, folder)

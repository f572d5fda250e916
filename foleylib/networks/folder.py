"""Networks of our own as folders of config.json and model.safetensors, by way of huggingface_hub's mixin."""

import contextlib
from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError

from foleylib.runtime import finite


class FolderMixin(PyTorchModelHubMixin):
    """`save_pretrained` without a model card, and a strict `from_folder` that never asks the Hub."""

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        super().save_pretrained(folder, **options)
        (Path(folder) / "README.md").unlink(missing_ok=True)

    @classmethod
    def from_folder(cls, folder: str | Path, *, stage: str) -> Self:
        """The network of a folder that `stage` wrote, in evaluation mode."""
        if not all((Path(folder) / name).is_file() for name in ("config.json", "model.safetensors")):
            raise ValueError(f"{folder}: no config.json with model.safetensors; run the {stage} stage first")
        try:
            with contextlib.redirect_stdout(None):  # the mixin prints a line
                model = cls.from_pretrained(folder, strict=True)
        except (TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{folder}: damaged or of another version ({error}); run the {stage} stage again"
            ) from error
        return finite(model, folder)

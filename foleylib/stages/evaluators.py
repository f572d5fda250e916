"""The evaluators of params.yaml beyond the judge and CLAP, loaded from their published weights."""

from foleylib import paths
from foleylib.networks.embedders import Embedder
from foleylib.networks.published import hub
from foleylib.networks.published.evaluators import load_published
from foleylib.params.settings import Params
from foleylib.runtime import pick_device


def load(cfg: Params) -> dict[str, Embedder]:
    """Those that `evaluate.embedders` names, by name; weights that are absent or not pinned stop with a sentence."""
    device, loaded = pick_device(cfg.device), {}
    for name in cfg.evaluate.further:
        entry = cfg.evaluators[name]
        try:
            weights = hub.placed(paths.ROOT, entry.weights, entry.revision, f"evaluators.{name}.weights")
            tokenizer = entry.tokenizer and paths.ROOT / entry.tokenizer
            options = {"through": entry.through, "tokenizer": tokenizer, "sha256": entry.sha256, "device": device}
            loaded[name] = load_published(entry.kind, weights, **options)
        except ValueError as error:
            raise ValueError(f"evaluators.{name} in params.yaml: {error}") from error
    return loaded

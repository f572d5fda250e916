"""Whether a ranking by the judge is the judge's own: KAD and coverage of runs by judges trained with other seeds.

./run dvc exp run -S seed=1 -S judge.source=scratch -s judge && cp -r models/judge models/judge_1     # likewise with seed=2
./run python -m benchmarks.judges --judges models/judge models/judge_1 models/judge_2
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks import timing
from foleylib import paths
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.quick import judge_hits, kad_and_coverage
from foleylib.networks import judge as judges
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, progress, write_csv
from foleylib.stages.reference import reference
from foleylib.stages.sample import load_run


def measure(folders: list[Path], runs: list[str], cfg: Params) -> pd.DataFrame:
    """A row for each judge and run (the clips of its first seed): KAD, coverage and accuracy, averages over classes."""
    rows, real = [], reference(cfg)
    for folder in progress(folders, desc="judges"):
        embedder = judges.load(folder, device=pick_device(cfg.device))
        labels, truth = embedder.model.labels, _embed(embedder, *real)
        for run in runs:
            clips = _embed(embedder, *load_run(run))
            scores = kad_and_coverage(truth, clips, "judge") | {"accuracy": float(judge_hits(clips, labels).mean())}
            rows.append({"judge": folder.name, "weights_sha256": embedder.sha256, "run": run} | scores)
    return pd.DataFrame(rows)


def _embed(embedder, manifest: pd.DataFrame, waves) -> Embeddings:
    outputs = embedder.embed(waves)
    return Embeddings(manifest.label.to_numpy(), {"judge": outputs["embedding"], "logits": outputs["logits"]})


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", type=Path, nargs="+", default=[paths.JUDGE], help="folders, the first is the usual")
    parser.add_argument("--runs", nargs="+", help="of params.yaml; by default all that were sampled")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    cfg = settings.load()
    runs = arguments.runs or [run for run in cfg.rows() if paths.clips_of(run).is_dir()]
    table = measure(arguments.judges, runs, cfg)
    for metric in ("kad", "coverage"):
        wide = table.pivot(index="run", columns="judge", values=metric)
        print(metric, wide.loc[runs].round(3).to_string(), "Spearman's correlation", sep="\n")
        print(wide.corr("spearman").round(3).to_string())
    return write_csv(table, arguments.out / "judges.csv")


if __name__ == "__main__":
    main()

"""The clips of a corpus before any audio is read: splits, classes, ids, captions and prompts."""

import hashlib
import io
import re
from collections import Counter, defaultdict

import pandas as pd

from foleylib.corpora.left_out import check_left_out
from foleylib.corpora.rows import check_utf8
from foleylib.corpora.sources import CLASSES, DCASE_PROMPTS, read_clips
from foleylib.corpora.splits import SPLITS, by_class, by_column, by_fold, by_hash, check_absent
from foleylib.corpora.synth import captions, render
from foleylib.datasets.manifest import SYNTHETIC, CorpusError
from foleylib.evaluation.remarks import listed
from foleylib.params.corpora import Corpus

LONGEST = 100  # bytes of a label in UTF-8; a name of a file has 255, and says more than the label
OFFSETS = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # number of a split's first synthetic clip


def list_clips(settings: Corpus) -> list[dict]:
    """The clips of `list_corpus` alone."""
    return list_corpus(settings)[0]


def list_corpus(settings: Corpus) -> tuple[list[dict], list[dict]]:
    """The clips that `prepare` makes, and those that the corpus lists but the settings leave out.

    The former come by split, class and id: id, source, split, label, target, captions, prompt.

    `target` counts the classes (in the order given, else alphabetical), and is -1 for a clip without a label, which is
    "" then: of every clip where the corpus has no classes. A prompt is that of the settings, else the template's, else
    the corpus's own: the first caption where there is one, which it always is of a clip without a label. Every clip has
    at least one caption, its prompt where the corpus gives none.
    """
    left_out = []
    if settings.kind == "synthetic":
        clips, classes = _synthetic(settings)
    else:
        clips, classes, left_out = _recorded(settings)
    _check_prompts(settings, classes)
    target = {label: i for i, label in enumerate(classes)} | {"": -1}
    for clip in clips:
        label = clip["label"]
        clip["target"] = target[label]
        if label and settings.prompt_template:
            clip["prompt"] = settings.prompt_template.format(label=spoken(label))
        clip["prompt"] = settings.prompts.get(label, clip["prompt"])
        clip["captions"] = clip["captions"] or [clip["prompt"]]
    return sorted(clips, key=lambda clip: (SPLITS.index(clip["split"]), clip["target"], clip["id"])), left_out


def spoken(label: str) -> str:
    """Class name as words: "DogBark" -> "dog bark", "Sneeze_Cough" -> "sneeze cough"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-\s]+", " ", label)
    return " ".join(words.lower().split())


def _check_prompts(settings: Corpus, classes: list[str]) -> None:
    template = settings.prompt_template
    if template is not None and not classes:
        raise CorpusError(
            f"prompt_template={template!r}: the corpus has no classes, the prompt of a clip is its first caption; take "
            "the template out"
        )
    unknown = sorted(set(settings.prompts) - set(classes))
    if unknown:
        raise CorpusError(f"prompts name {unknown}, but the classes are {classes}; correct or remove these")


def _synthetic(settings: Corpus) -> tuple[list[dict], list[str]]:
    classes = _classes(settings.classes or render.BROAD, render.BROAD)
    counts, scenes = settings.clips_per_class or {}, settings.scenes or {}
    if not 0 < max([*counts.values(), *scenes.values()], default=0) <= 1_000_000:
        raise CorpusError(
            f"clips_per_class={counts}, scenes={scenes}: give up to 1000000 for each split, above 0 for one"
        )
    clips = [
        {
            "id": f"{label}-{split}-{i:06d}",
            "source_path": "synthetic",
            "split": split,
            "label": label,
            "captions": [],
            "prompt": captions.prompt(label),
            "source_group": f"{label}-{OFFSETS[split] + i}",
            "licence": SYNTHETIC,
            "index": OFFSETS[split] + i,
        }
        for split, count in counts.items()
        for label in classes
        for i in range(count)
    ]
    return clips + _scenes(settings, classes), classes if any(counts.values()) else []


def _scenes(settings: Corpus, classes: list[str]) -> list[dict]:
    """Records of the scenes, whose "scene" is what `render_scene` draws their sounds from.

    The classes that are not held out have the frequency rank^-zipf in the training and validation scenes; test scenes
    draw evenly from all classes, so that rare and held-out ones can be judged.
    """
    held_out, most = settings.held_out, settings.events[1]
    seen = [label for label in classes if label not in held_out]
    if len(seen) + len(held_out) != len(classes) or (settings.scenes and len(seen) < most):
        raise CorpusError(
            f"held_out={held_out}: name classes of the corpus, each once, and leave at least {most} (the most events of "
            f"a scene) of {classes}"
        )
    needed = render.SHORTEST * (1 + (most - 1) / 2)
    if settings.scenes and settings.seconds < needed:
        raise CorpusError(
            f"seconds={settings.seconds}: scenes of up to {most} sounds need {needed} s, or their order is not heard; "
            "give longer clips or fewer events"
        )
    weights = [rank**-settings.zipf for rank in range(1, len(seen) + 1)] if settings.zipf else None
    trained = {"classes": seen, "count": settings.events, "weights": weights}
    drawn = {"train": trained, "val": trained, "test": {"classes": classes, "count": settings.events}}
    common = {"source_path": "synthetic", "label": "", "captions": [], "prompt": "", "licence": SYNTHETIC}
    return [
        {
            **common,
            "id": f"Scene-{split}-{i:06d}",
            "source_group": f"Scene-{OFFSETS[split] + i}",
            "split": split,
            "index": OFFSETS[split] + i,
            "scene": drawn[split],
        }
        for split, count in (settings.scenes or {}).items()
        for i in range(count)
    ]


def _recorded(settings: Corpus) -> tuple[list[dict], list[str], list[dict]]:
    rows = read_clips(settings)
    clips = [clip for clip in rows if "left_out" not in clip]
    left_out = [clip for clip in rows if "left_out" in clip]
    check_left_out(clips, left_out, settings)
    wanted = CLASSES.get(settings.kind) if settings.classes is None else settings.classes
    classes = _classes(wanted, sorted({clip["label"] for clip in clips} - {""}))
    chosen = [clip for clip in clips if wanted is None or clip["label"] in classes]
    check_utf8(settings.root, [clip["source_path"] for clip in chosen])
    _check_labels(classes)
    if "fold" in clips[0]:
        clips, asked = by_fold(clips, settings.folds), settings.folds
    elif all("split" in clip for clip in clips):
        if settings.kind == "folder" and settings.split_fractions is not None:
            raise CorpusError(
                f"root {settings.root}: its column `split` and split_fractions={settings.split_fractions} both say how to "
                "split; remove one of them"
            )
        clips, asked = by_column(clips), {}
    elif settings.split_fractions is not None:
        clips, asked = by_hash(clips, settings.split_fractions, settings.seed), settings.split_fractions
    else:
        clips, asked = by_class(chosen, settings.seed), {}
    clips = [clip for clip in clips if wanted is None or clip["label"] in classes]
    empty = [split for split, share in asked.items() if share and split not in {clip["split"] for clip in clips}]
    if empty or not clips:
        remedy = "change their shares, folds or seed"
        raise CorpusError(f"splits {empty or SPLITS} got no clip of classes {classes}; {remedy}")
    _check_spelling(classes)
    if settings.kind == "folder":  # the published ones have every class in every fold
        check_absent(clips)
    for clip, id in zip(clips, _ids(clips)):
        clip["id"] = id
        clip["prompt"] = (*clip["captions"], DCASE_PROMPTS.get(clip["label"], spoken(clip["label"])))[0]
    return clips, classes, left_out


def _check_labels(classes: list[str]) -> None:
    """Refuse classes that cannot become what they later do: names of files, words of prompts, cells of tables."""
    table = pd.DataFrame({"label": classes, "n": 0}).to_csv(index=False)  # with `n` no line is blank
    read_back = pd.read_csv(io.StringIO(table)).label
    faults = {
        "begin with a dot, or hold a slash, a backslash or a control character": [
            label for label in classes if re.search(r"^\.|[/\\\x00-\x1f\x7f-\x9f]", label)
        ],
        f"have more than {LONGEST} bytes": [label for label in classes if len(label.encode()) > LONGEST],
        "have no letter or digit": [label for label in classes if not any(map(str.isalnum, label))],
        "are read back from a table as missing": [label for label, lost in zip(classes, read_back.isna()) if lost],
    }
    for what, labels in faults.items():
        if labels:
            told = listed(repr(label[:40]) for label in labels)
            raise CorpusError(f"classes {told} {what}; labels name files and stand in prompts and tables, give others")


def _check_spelling(classes: list[str]) -> None:
    """Refuse classes that are one in several spellings, as "DogBark" and "dog_bark"."""
    spellings = defaultdict(list)
    for label in classes:
        spellings[spoken(label)].append(label)
    several = [" and ".join(labels) for labels in spellings.values() if len(labels) > 1]
    if several:
        raise CorpusError(f"classes {listed(several)} are the same in words; give each class one spelling")


def _classes(wanted, present) -> list[str]:
    """The classes asked for, which must be among those `present`; None asks for all."""
    if wanted is None:
        return list(present)
    if isinstance(wanted, str):
        wanted = render.FOLEY if wanted == "foley" else render.BROAD
    absent = [label for label in wanted if label not in present]
    if absent or len(set(wanted)) < len(wanted) or not wanted:
        raise CorpusError(f"classes={list(wanted)}: {absent or 'none or some twice'}; the corpus has {list(present)}")
    return list(wanted)


def _ids(clips: list[dict]) -> list[str]:
    """File-name-safe ids, from the names of the clips; a hash of the path tells equal ones apart."""
    paths = [clip["source_path"] for clip in clips]
    twice = sorted(path for path, n in Counter(paths).items() if n > 1)
    if twice:
        raise CorpusError(f"listed more than once: {listed(twice)}; keep one row of each")
    slugs = [re.sub(r"[^A-Za-z0-9._]+", "-", clip["name"]).strip("-.")[:100] for clip in clips]
    count = Counter(slug.lower() for slug in slugs)
    hashes = [hashlib.sha256(path.encode()).hexdigest()[:8] for path in paths]
    return [slug if slug and count[slug.lower()] == 1 else f"{slug}-{h}" for slug, h in zip(slugs, hashes)]

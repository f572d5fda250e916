"""The clips of a corpus before any audio is read: splits, classes, ids, captions and prompts."""

import hashlib
import re
import string
from collections import Counter, defaultdict

from foleylib.corpora.left_out import check_left_out
from foleylib.corpora.rows import named
from foleylib.corpora.sources import CLASSES, DCASE_PROMPTS, read_clips
from foleylib.corpora.synth import captions, render
from foleylib.datasets.manifest import SYNTHETIC, CorpusError
from foleylib.params.corpora import Corpus

SPLITS = ("train", "val", "test")
LEAST = 4  # recordings of a class that can be split
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
    if template is not None and {part[1] for part in string.Formatter().parse(template)} - {None} != {"label"}:
        raise CorpusError(f"prompt_template={template!r}: it must hold {{label}}, and no other field")
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
    listed = read_clips(settings)
    clips = [clip for clip in listed if "left_out" not in clip]
    left_out = [clip for clip in listed if "left_out" in clip]
    check_left_out(clips, left_out, settings)
    wanted = CLASSES.get(settings.kind) if settings.classes is None else settings.classes
    classes = _classes(wanted, sorted({clip["label"] for clip in clips} - {""}))
    if "fold" in clips[0]:
        clips, asked = by_fold(clips, settings.folds), settings.folds
    elif all("split" in clip for clip in clips):
        clips, asked = by_column(clips), {}
    elif settings.split_fractions is not None:
        clips, asked = by_hash(clips, settings.split_fractions, settings.seed), settings.split_fractions
    else:
        clips, asked = (
            by_class([clip for clip in clips if wanted is None or clip["label"] in classes], settings.seed),
            {},
        )
    clips = [clip for clip in clips if wanted is None or clip["label"] in classes]
    empty = [split for split, share in asked.items() if share and split not in {clip["split"] for clip in clips}]
    if empty or not clips:
        remedy = "change their shares, folds or seed"
        raise CorpusError(f"splits {empty or SPLITS} got no clip of classes {classes}; {remedy}")
    for clip, id in zip(clips, _ids(clips)):
        clip["id"] = id
        clip["prompt"] = (*clip["captions"], DCASE_PROMPTS.get(clip["label"], spoken(clip["label"])))[0]
    return clips, classes, left_out


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
        raise CorpusError(f"listed more than once: {', '.join(twice)}; keep one row of each")
    slugs = [re.sub(r"[^A-Za-z0-9._]+", "-", clip["name"]).strip("-.")[:100] for clip in clips]
    count = Counter(slug.lower() for slug in slugs)
    hashes = [hashlib.sha256(path.encode()).hexdigest()[:8] for path in paths]
    return [slug if slug and count[slug.lower()] == 1 else f"{slug}-{h}" for slug, h in zip(slugs, hashes)]


def by_fold(clips: list[dict], folds: dict[str, list[int]]) -> list[dict]:
    """Split clips by their folds; those of a fold that is in no split are left out."""
    _check_groups(clips, "fold")
    split_of = {fold: split for split, numbers in folds.items() for fold in numbers}
    if not split_of or len(split_of) < sum(map(len, folds.values())):
        raise CorpusError(f"folds={folds}: give each fold to one split, such as train [1, 2, 3, 4], test [5]")
    present = {clip["fold"] for clip in clips}
    absent = sorted(set(split_of) - present)
    if absent:
        raise CorpusError(f"folds={folds}: the corpus has no clips in folds {absent}, only in {sorted(present)}")
    return [{**clip, "split": split_of[clip["fold"]]} for clip in clips if clip["fold"] in split_of]


def by_column(clips: list[dict]) -> list[dict]:
    """Clips whose splits the corpus itself gives, checked."""
    unknown = sorted({clip["split"] for clip in clips} - set(SPLITS))
    if unknown:
        raise CorpusError(f"split column holds {unknown}; give every row one of {', '.join(SPLITS)}")
    _check_groups(clips, "split")
    return clips


def by_hash(clips: list[dict], fractions: dict[str, float], seed: int) -> list[dict]:
    """Split source groups by a seeded hash of their name, so that clips added later move no others; clips that have a
    split of their own, those of a challenge's evaluation set, keep it."""
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise CorpusError(f"split_fractions={fractions}: give shares >= 0 that sum to 1, such as train .8, test .2")
    given = {clip["split"] for clip in clips if "split" in clip}
    if mixed := sorted(split for split in given if fractions.get(split)):
        raise CorpusError(
            f"split_fractions={fractions}: {mixed[0]} is what the corpus itself gives to some clips; give it no share, so "
            "that others do not come among them"
        )
    return [{"split": _hashed_split(clip["source_group"], fractions, seed), **clip} for clip in clips]


def by_class(clips: list[dict], seed: int) -> list[dict]:
    """Split the source groups of each class: a fifth of them, and at least two, for testing, a fifth for validation, the
    others for training. Which, is drawn by a seeded hash of their name.

    Where few clips are to be in every split, this is surer than `by_hash`, whose shares hold on average alone. A group with
    clips of several classes counts in that of the first.
    """
    groups, split_of = defaultdict(list), {}
    for group, label in {clip["source_group"]: clip["label"] for clip in reversed(clips)}.items():
        groups[label].append(group)
    few = [f"{label or 'clips'} {len(names)}" for label, names in groups.items() if len(names) < LEAST]
    if few:
        raise CorpusError(
            f"too few recordings to split: {named(sorted(few))}; give at least {LEAST} of each class (two to test, one to "
            "validate, one to train), or a column `split`"
        )
    for names in groups.values():
        names.sort(key=lambda group: _draw(group, seed))
        tested, validated = max(2, round(len(names) / 5)), max(1, round(len(names) / 5))
        parts = ["test"] * tested + ["val"] * validated + ["train"] * (len(names) - tested - validated)
        split_of |= dict(zip(names, parts))
    return [{**clip, "split": split_of[clip["source_group"]]} for clip in clips]


def _draw(group: str, seed: int) -> float:
    """A number in [0, 1) that hangs on the group's name and the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64


def _hashed_split(group: str, fractions: dict[str, float], seed: int) -> str:
    draw, edge = _draw(group, seed), 0.0
    for split in SPLITS:
        edge += fractions.get(split, 0.0)
        if draw < edge:
            return split
    return max(fractions, key=fractions.get)  # the shares sum to a rounding error below 1


def _check_groups(clips: list[dict], key: str) -> None:
    values = defaultdict(set)
    for clip in clips:
        values[clip["source_group"]].add(clip[key])
    parted = {group: sorted(several) for group, several in values.items() if len(several) > 1}
    if parted:
        raise CorpusError(f"clips of one source group lie in more than one {key}: {parted}; correct the metadata")

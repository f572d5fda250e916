"""Files of the Hugging Face Hub at a pinned commit, through the Hub's own client and cache.

Nothing is asked of the network where the cache has the files already: those of a commit never change. A transfer that
breaks off goes on where it was; one whose process ended begins with the first file that is not whole.
"""

import re
from contextlib import suppress
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
# owner/name, or a name alone of the first repositories (roberta-base), and a file in it where there is one.
ID = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<file>[\w./=-]+\.(?:pt|pth|ckpt|safetensors)))?")
CARD = "README.md"
NOT_WANTED = ["*fp16*", "*non_ema*"]  # second copies of the same weights


class HubError(ValueError):
    """A repository, revision or file that cannot be had, in one sentence with what to do."""


def split_id(name: str) -> tuple[str, str | None]:
    """The repository and the file in "owner/name", "name" or "owner/name/file.pt"."""
    found = ID.fullmatch(name)
    if found is None:
        raise HubError(f"'{name}' is no id of the Hugging Face Hub; give owner/name, or owner/name/file.ckpt")
    return found["repository"], found["file"]


def fetch(
    name: str,
    revision: str | None,
    wanted: list[str],
    *,
    weights: bool = True,
    setting: str = "revision",
    instead: str = "",
) -> Path:
    """The folder with the wanted files of a repository at a commit, or the file that `name` names in it.

    Parameters
    ----------
    name : see `split_id`.
    revision : 40 hexadecimal digits; a branch can change, so that it is refused.
    wanted : patterns of the files' names, such as "*.json".
    weights : whether the weights of its folders are wanted too: safetensors where it has them, else PyTorch's files.
    setting : what is called `revision` in the settings; instead : what to set for a copy of the files, for the sentence.
    """
    repository, file = split_id(name)
    if revision is None or not COMMIT.fullmatch(revision):
        raise HubError(_unpinned(repository, revision, setting))
    if file is not None:
        folder = _snapshot(repository, revision, [file, CARD], instead)
        return _present(folder / file, repository, revision)
    wanted = [*wanted, CARD, *(["*.safetensors"] if weights else [])]
    folder = _snapshot(repository, revision, wanted, instead)
    configs = sorted(folder.rglob("config.json")) if weights else []
    bins = [f"{c.parent.relative_to(folder).as_posix()}/*.bin" for c in configs if not any_weights(c.parent)]
    bins = [pattern.removeprefix("./") for pattern in bins]
    return _snapshot(repository, revision, [*wanted, *bins], instead) if bins else folder


def placed(root: Path, name: str, revision: str | None, setting: str) -> Path:
    """The path that a setting names below `root`, or with a revision what it names on the Hub: a file, or all of a folder's
    configuration and weights."""
    if revision is None or (root / name).exists():
        return root / name
    return fetch(
        name, revision, ["*.json", "*.txt", "*.model"], setting=f"the revision of {setting}", instead=f"{setting} to it"
    )


def any_weights(folder: Path) -> bool:
    """Whether a part's folder has weights in one of the formats that are read here."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def licence_of(folder: Path) -> str | None:
    """The licence that a model card's front matter names; None without a card, or where it names none."""
    import yaml

    card = folder / CARD
    found = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf8"), re.DOTALL) if card.is_file() else None
    try:
        content = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:  # the card is for people: a broken one names no licence
        return None
    if not isinstance(content, dict) or "license" not in content:
        return None
    named = content.get("license_name") if content["license"] == "other" else None
    return str(named or content["license"])


def _present(file: Path, repository: str, revision: str) -> Path:
    if not file.is_file():
        raise HubError(f"{repository} has no file {file.name} at revision {revision}; correct its name")
    return file


def _snapshot(repository: str, revision: str, patterns: list[str], instead: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    options = {"revision": revision, "allow_patterns": patterns, "ignore_patterns": NOT_WANTED}
    with suppress(errors.LocalEntryNotFoundError):
        return Path(snapshot_download(repository, local_files_only=True, **options))
    unreachable = HubError(_unreachable(repository, revision, patterns, instead))
    _ask(repository, revision, unreachable)
    try:
        folder = Path(snapshot_download(repository, **options))
    except errors.GatedRepoError as error:
        raise HubError(f"{repository}: agree to its licence on its page first, then run `hf auth login`") from error
    except errors.LocalEntryNotFoundError as error:
        raise unreachable from error
    except Exception as error:  # the client's errors of a transfer: of its HTTP library, sizes, a full disk
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HubError(f"{repository} at {revision}: the transfer failed ({said}); start again, it goes on") from error
    if not folder.is_dir() or not any(path.is_file() for path in folder.rglob("*")):
        raise HubError(f"{repository} has no file {', '.join(patterns)} at revision {revision}; correct the id")
    return folder


def _ask(repository: str, revision: str, unreachable: HubError) -> None:
    """Stop where the Hub has no such commit, or cannot be reached: the download would try that for half a minute."""
    from huggingface_hub import HfApi, constants, errors

    try:
        HfApi(endpoint=constants.ENDPOINT).model_info(repository, revision=revision, timeout=10)
    except errors.RepositoryNotFoundError as error:
        raise HubError(f"the Hub has no repository {repository}, or it is private; correct the id") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository} has no revision {revision}; {_current(repository)}") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        raise unreachable from error


def _unpinned(repository: str, revision: str | None, setting: str) -> str:
    told = "is empty" if revision is None else f"is '{revision}', which can change"
    return f"{setting} {told}: pin a commit of {repository} by its 40 hexadecimal digits; {_current(repository)}"


def _current(repository: str) -> str:
    """What the commit of the main branch is, or where it stands."""
    from huggingface_hub import HfApi, constants

    with suppress(Exception):  # no network, no such repository: then there is no commit to name
        return f"today's is {HfApi(endpoint=constants.ENDPOINT).model_info(repository, timeout=10).sha}"
    return f"the list is at {constants.ENDPOINT}/{repository}/commits/main"


def _unreachable(repository: str, revision: str, patterns: list[str], instead: str) -> str:
    from huggingface_hub import constants

    return (
        f"{repository} at {revision} ({', '.join(patterns)}) is not, or not whole, in the cache {constants.HF_HUB_CACHE}, "
        f"and {constants.ENDPOINT} cannot be reached; where there is a network, run `hf download {repository} --revision "
        f"{revision} --local-dir FOLDER`, copy FOLDER here, and set {instead or 'the setting to it'}"
    )

"""The console script `foleylib`: one command for each thing that needs no graph."""

import argparse
import sys

from foleylib.commands import corpus, generate, models, pictures, score, site

COMMANDS = {
    "generate": generate,
    "score": score,
    "corpus": corpus,
    "models": models,
    "site": site,
    "pictures": pictures,
}


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="foleylib",
        description="Sounds from texts, scores of sounds, and the models at hand. The experiments themselves are stages: "
        "`./run dvc repro`.",
    )
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    how = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.HELP, description=command.ABOUT, **how)
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return whole


def main(argv: list[str] | None = None) -> int:
    """Run a command; what cannot be done is told in a sentence on standard error, with status 1."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"foleylib: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

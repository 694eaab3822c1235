"""The entry point: finds verbs, turns every failure into a message and an exit code.

A verb is a file of this folder that defines `command`. Listing the verbs reads their docstrings without importing
them, so that `edgekit --help` starts at once whatever the verbs need.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import click

from edgekit import __version__
from edgekit.errors import DoesNotFit, EdgekitError, of_os_error

EXIT_INTERRUPTED = 130
#: What torch, onnxruntime and the C++ library say when an allocation fails without raising MemoryError.
OUT_OF_MEMORY_SIGNS = ("can't allocate memory", "Failed to allocate memory", "bad_alloc", "out of memory")


class VerbGroup(click.Group):
    """A group whose commands are the files of a package; only the verb that is called gets imported."""

    def __init__(self, package: str, folder: Path, **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self.package = package
        self.folder = folder

    def verbs(self) -> dict[str, str]:
        """Every verb and its one-line help, by name."""
        found = {}
        for path in sorted(self.folder.glob("*.py")):
            help_line = verb_help(path)
            if help_line is not None:
                found[path.stem.replace("_", "-")] = help_line
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stem = cmd_name.replace("-", "_")
        path = self.folder / f"{stem}.py"
        if not stem.isidentifier() or not path.is_file() or verb_help(path) is None:
            return None
        command: click.Command = importlib.import_module(f"{self.package}.{stem}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(self.verbs().items())
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            verbs = list(self.verbs())
            near = get_close_matches(name, verbs)
            hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"The commands are: {', '.join(verbs)}."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


def verb_help(path: Path) -> str | None:
    """The first line of the docstring of `command`, or of the file; None when the file defines no `command`."""
    module = ast.parse(path.read_bytes())
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return _first_line(ast.get_docstring(node)) or _first_line(ast.get_docstring(module))
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "command" for target in targets):
                return _first_line(ast.get_docstring(module))
    return None


def _first_line(docstring: str | None) -> str:
    return docstring.strip().splitlines()[0].rstrip(".") if docstring and docstring.strip() else ""


@click.command(
    cls=VerbGroup,
    package="edgekit.cli",
    folder=Path(__file__).parent,
    context_settings={"auto_envvar_prefix": "EDGEKIT", "help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 parity failed, 4 does not fit, 5 damaged or incompatible bundle, "
    "130 interrupted. Every option can be set by an environment variable, for example EDGEKIT_RUN_SEED.",
)
@click.version_option(__version__, prog_name="edgekit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From a language-model checkpoint to a chat on an edge device."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code. `arguments` defaults to those of the process."""
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = 1
    except OSError as error:  # the final flush, as in `edgekit ... > /dev/full`
        _drop_output()
        code = _report(_as_edgekit_error(error) or error)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    # Before the first `--`-less verb only: a verb may have an option of that name.
    debug = "--debug" in arguments[:1] or os.environ.get("EDGEKIT_DEBUG", "") not in ("", "0")
    try:
        code = cli.main(arguments, prog_name="edgekit", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        if debug:
            import traceback

            traceback.print_exc()
        return _report(_as_edgekit_error(error) or error)


def _as_edgekit_error(error: Exception) -> EdgekitError | None:
    """The error a user can act on that stands for `error`; None when it is a defect of edgekit."""
    if isinstance(error, EdgekitError):
        return error
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
        return DoesNotFit(
            "the work must fit in memory",
            f"an allocation failed: {_shorten(str(error)) or 'no memory'}",
            "close other programs, or use a smaller model, context or --dtype",
        )
    return of_os_error(error) if isinstance(error, OSError) else None


def _report(error: Exception) -> int:
    """Print the error on stderr in labelled lines; give its exit code."""
    if isinstance(error, EdgekitError):
        rule, fact, next_step, code = error.rule, error.fact, error.next_step, error.exit_code
    else:
        rule, code = "edgekit failed in a way it did not foresee", 1
        fact = f"{type(error).__name__}: {_shorten(str(error))}"
        next_step = "see the traceback: edgekit --debug ..., and report it"
    for label, text in (("error: ", rule), ("  found: ", fact), ("  next: ", next_step)):
        if text:
            click.echo(click.style(label, fg="red" if label == "error: " else None, bold=True) + text, err=True)
    return code


def _shorten(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + " ..."


def _drop_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit has nothing left to fail on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

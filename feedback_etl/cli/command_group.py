"""The group of all commands, with a hint where an option is given without its command, and plain help."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer
from typer._click.formatting import HelpFormatter
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from feedback_etl.errors import UsageError

ROWS, SERIES, PRIVACY, OUTPUT, SPEED = "Rows", "Incremental exports", "Privacy", "Output", "Speed"
"""Headings under which the options of a command with many are listed."""

_TYPERS_FLAGS = ("help", "install_completion", "show_completion")
"""Flags that Typer adds without a default. It imports pydantic to convert None, which takes a third of `--help`."""


def _declare_option(heading: str | None, names: str, text: str, metavar: str | None = None, **settings: Any) -> Any:
    """Declare an option that is listed under a heading, by its names, its help text and the name of its value."""
    return typer.Option(*names.split(), help=text, metavar=metavar, rich_help_panel=heading, **settings)


row_option, series_option, privacy_option, output_option, speed_option, option = (
    partial(_declare_option, heading) for heading in (ROWS, SERIES, PRIVACY, OUTPUT, SPEED, None)
)


@contextmanager
def explain_usage() -> Iterator[None]:
    """Raise the errors of Typer's parser as a `UsageError` of one sentence, as all other wrong usage."""
    try:
        yield
    except TyperException as error:
        describe = getattr(error, "format_message", None)
        if describe is None or type(error).__name__ == "NoArgsIsHelpError":  # which prints the help
            raise
        message, _, _ = describe().replace("Value error, ", "").partition(", unable to parse")
        message = message.replace("Input should be", "it must be").rstrip(".")
        context = getattr(error, "ctx", None)  # not known where the value of an option is missing
        hint = f" `{context.command_path} --help` shows what is accepted." if context else ""
        raise UsageError(f"{message}{'' if message.endswith('?') else '.'}{hint}") from None


class _WholeNames(HelpFormatter):
    """Help that breaks no line within the name of an option or a short default."""

    _UNBROKEN = re.compile(r"\[default: [^]]{1,20}\]|\S+-\S+")

    def write_dl(self, rows: Sequence[tuple[str, str]], *args: Any, **options: Any) -> None:
        """Write the rows, with characters at which no line is broken."""
        super().write_dl([(names, self._UNBROKEN.sub(_bind, text)) for names, text in rows], *args, **options)

    def getvalue(self) -> str:
        """Return the text, with blanks and hyphens instead of these characters."""
        return super().getvalue().replace("\N{NO-BREAK SPACE}", " ").replace("\N{NON-BREAKING HYPHEN}", "-")


def _bind(words: re.Match[str]) -> str:
    return words[0].replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{NON-BREAKING HYPHEN}")


class _Context(typer.Context):
    formatter_class = _WholeNames


class SingleCommand(TyperCommand):
    """A program of one command."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the command line; raise a `UsageError` if it is wrong."""
        with explain_usage():
            return super().make_context(*args, **options)


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under the headings that they name (`rich_help_panel`).

    Typer does this with Rich alone, whose import would take a quarter of the time of `--help`.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by heading, in the order of the headings."""
        for heading in (ROWS, SERIES, PRIVACY, OUTPUT, SPEED, None):
            parameters = [
                parameter
                for parameter in self.get_params(ctx)
                if getattr(parameter, "rich_help_panel", None) == heading
            ]
            records = [record for parameter in parameters if (record := parameter.get_help_record(ctx))]
            if records:
                with formatter.section(heading or "Options"):
                    formatter.write_dl(records)


class FolderCommand(TyperCommand):
    """A command for the folder of exports that its argument names; `--output FOLDER` is accepted too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the value of `--output` as the argument.

        Raises:
            UsageError: `--output` is given without a folder.
        """
        for number, word in enumerate(args):
            name, _, folder = word.partition("=")
            if name == "--output":
                rest = args[number + 1 :] if word == name else [folder, *args[number + 1 :]]
                if not rest or rest[0].startswith("-"):
                    raise UsageError("--output needs a value: name the folder of the exports.")
                return super().parse_args(ctx, [*args[:number], *rest])
        return super().parse_args(ctx, args)


class CommandGroup(TyperGroup):
    """A group whose usage errors name the command that an option belongs to."""

    context_class = _Context

    def make_context(self, info_name: str | None, *args: Any, **options: Any) -> Any:
        """Name the command in usage lines as it is typed, also for `python -m feedback_etl`."""
        is_module = info_name is not None and info_name.startswith("python -m feedback_etl")
        with explain_usage():
            return super().make_context("feedback-etl" if is_module else info_name, *args, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the command; the classic command line had no commands (`--days 7`)."""
        for parameter in self.get_params(ctx):
            if parameter.name in _TYPERS_FLAGS:
                vars(parameter)["default"] = False
        option = args[0].partition("=")[0] if args else ""
        own_options = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        commands = [] if option in own_options else self._find_commands(option)
        if commands:
            suggested = "export" if "export" in commands else commands[0]
            others = [f"`{name}`" for name in commands if name != suggested]
            also = f" ({', '.join(others)} {'has' if len(others) == 1 else 'have'} it too)" if others else ""
            message = f"{option} is an option of a command. Did you mean `feedback-etl {suggested} {option} ...`?{also}"
            raise UsageError(message)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command whose help shows its arguments by their metavar alone, without the types of Python."""
        command = super().get_command(ctx, cmd_name)
        for subcommand in (command, *getattr(command, "commands", {}).values()) if command else ():
            vars(subcommand)["context_class"] = _Context
            for parameter in subcommand.params:
                if parameter.param_type_name == "argument":
                    vars(parameter)["display_type_rich"] = lambda **_: None
        return command

    def invoke(self, ctx: Any) -> Any:
        """Invoke a command; raise a `UsageError` if its command line is wrong."""
        with explain_usage():
            return super().invoke(ctx)

    def _find_commands(self, option: str) -> list[str]:
        """Return the names of the commands that have an option."""
        return [
            name
            for name, command in self.commands.items()
            if any(option in parameter.opts for parameter in command.params if parameter.param_type_name == "option")
        ]

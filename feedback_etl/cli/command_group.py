"""The group of all commands: an option without its command is answered with the command that has it."""

from typing import Any

from typer.core import TyperGroup


class CommandGroup(TyperGroup):
    """A group whose usage errors name the command that an option belongs to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the command; the classic command line had none (`--days 7`)."""
        option = args[0].partition("=")[0] if args else ""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        commands = [] if option in own else self._commands_with(option)
        if commands:
            meant = "export" if "export" in commands else commands[0]
            others = [f"`{name}`" for name in commands if name != meant]
            also = f" ({', '.join(others)} {'has' if len(others) == 1 else 'have'} it too)" if others else ""
            ctx.fail(f"{option} is an option of a command. Is `feedback-etl {meant} {option} ...` meant?{also}")
        return super().parse_args(ctx, args)

    def _commands_with(self, option: str) -> list[str]:
        return [
            name
            for name, command in self.commands.items()
            if any(option in parameter.opts for parameter in command.params if parameter.param_type_name == "option")
        ]

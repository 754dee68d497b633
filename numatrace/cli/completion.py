"""`numatrace completion`: the script that makes a shell complete numatrace's words."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_NUMATRACE_COMPLETE"
"""Set by the script when it asks numatrace what could come next: click's own protocol."""

EPILOG = """\b
Examples:
  eval "$(numatrace completion bash)"        for this shell
  numatrace completion bash > ~/.local/share/bash-completion/completions/numatrace
  numatrace completion zsh > ~/.zfunc/_numatrace    in a folder of fpath
  numatrace completion fish > ~/.config/fish/completions/numatrace.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands, options and files in a shell."""
    click.echo(script(shell))


def script(shell: str) -> str:
    """Return click's script for a shell, which is for the program on the PATH by its name."""
    from click.shell_completion import ShellComplete, get_completion_class

    from numatrace.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None  # click knows all of SHELLS
    # Not found.source(): bash's runs bash to see its version.
    return ShellComplete.source(found(cli, {}, "numatrace", VARIABLE))

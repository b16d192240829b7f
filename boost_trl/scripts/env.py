"""`boost-trl env`: what a bug report has to say about the machine, `trl env` with what is ours."""

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

from boost_trl.hidden_tokens import without_secrets
from boost_trl.scripts.command_parser import CommandParser


def make_parser(prog: str | None = None) -> CommandParser:
    """The command's parser."""
    return CommandParser(
        prog=prog,
        usage="%(prog)s",
        description="Print what a bug report needs: versions, platform, accelerators, accelerate's config; secrets are left out.",
        epilog="",
    )


def prepare() -> Callable[[], None]:
    return lambda: print(environment())


def environment() -> str:
    """Versions, platform, accelerators with their memory, and accelerate's config, as a Markdown list."""
    import torch
    from trl.scripts.env import print_env
    from trl.scripts.utils import get_git_commit_hash

    from boost_trl.version import __version__

    with redirect_stdout(StringIO()) as printed:
        print_env()
    commit = get_git_commit_hash("boost_trl")
    lines = [f"- boost_trl version: {__version__}{f'+{commit[:7]}' if commit else ''}"]
    if torch.cuda.is_available():
        sizes = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
        lines.append(f"- CUDA version: {torch.version.cuda}")
        lines.append(f"- accelerator memory: {', '.join(f'{size:.0f} GiB' for size in sizes)}")
    # An accelerate config can hold environment variables.
    return without_secrets("\n".join([printed.getvalue().rstrip(), *lines]))

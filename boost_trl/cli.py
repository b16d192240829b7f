"""The `boost-trl` command. Heavy modules load only for the command that is run, so that `--help` is fast."""

import sys
from importlib import import_module
from types import ModuleType

from boost_trl.environments.base import AllGamesFailed
from boost_trl.hidden_tokens import without_hub_tokens
from boost_trl.hub_names import is_connection_error
from boost_trl.scripts.nearest_name import nearest_name
from boost_trl.scripts.resume_argument import with_newest_checkpoint
from boost_trl.trainer.common.checkpoint_error import CheckpointError


COMMANDS = {
    "demo": ("boost_trl.scripts.demo", "see what learned weights do, in minutes on two cores"),
    "offline-rl": (
        "boost_trl.scripts.offline_rl",
        "train on trajectories with learned weights (BilevelOfflineRLTrainer)",
    ),
    "sft-self-refine": (
        "boost_trl.scripts.sft_self_refine",
        "fine-tune on instructions with learned weights (BilevelSFTSelfRefineTrainer)",
    ),
    "dpo": (
        "boost_trl.scripts.dpo",
        "optimise preferences with learned weights of pairs (BilevelDPOTrainer)",
    ),
    "compare": ("boost_trl.scripts.compare", "say which way of training pays on a pool and trusted rows of your own"),
    "analyze": ("boost_trl.scripts.analyze", "say in pictures what the weights of finished runs mean"),
    "synthesize": ("boost_trl.scripts.synthesize", "let a model continue training dialogues, playing both roles"),
    "rollout": ("boost_trl.scripts.rollout", "play live games with a model and save them"),
    "reproduce": (
        "boost_trl.scripts.reproduce",
        "run the papers' tables, cell by cell, with controls beside their methods",
    ),
    "env": ("boost_trl.scripts.env", "print what a bug report needs: versions, platform, accelerators"),
}


TRAINING_OPTIONS = (
    "such as --output_dir, --max_steps, --num_train_epochs, --learning_rate, --per_device_train_batch_size, --bf16, --logging_steps, "
    "--save_steps, --report_to, --push_to_hub"
)


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: boost-trl COMMAND [--config FILE.yaml] [OPTIONS]",
            "",
            "commands:",
            *lines,
            "",
            "`boost-trl COMMAND --help` lists a command's options, `--help-all` those of training as well. On several processes:",
            "  accelerate launch -m boost_trl.cli COMMAND [OPTIONS]",
        ]
    )


def command_help(script: ModuleType, prog: str, everything: bool) -> str:
    """The help of a command: its own options, and with `everything` those of its training arguments behind them."""
    if not hasattr(script, "own_options"):
        return script.make_parser(prog=prog).format_help()
    from boost_trl.scripts.command_parser import CONFIG_HELP, help_parser

    own = script.own_options()
    if not everything:
        more = f"`{prog} --help-all` adds all options of training, {TRAINING_OPTIONS}. {CONFIG_HELP}"
        return help_parser(prog, own, (), epilog=more).format_help()
    kinds = script.help_types() if hasattr(script, "help_types") else script.make_parser(prog=prog).dataclass_types
    return help_parser(prog, own, [kind for kind in kinds if kind not in own.values()]).format_help()


def with_config_apart(arguments: list[str]) -> list[str]:
    """The command line with `--config=FILE` as two words, as TRL's parser has to have it."""
    return [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith("--config=") else [argument])
    ]


def refuse(name: str, why: Exception | str) -> int:
    """Say in one line why a command does not run; the exit status."""
    print(f"boost-trl {name}: {without_hub_tokens(' '.join(str(why).split()))}", file=sys.stderr)
    return 2


def interrupted(name: str) -> int:
    """Say in one line that a command was stopped; the exit status, as a shell has it for Ctrl-C."""
    again = ""
    if name in ("offline-rl", "sft-self-refine", "dpo"):
        again = (
            "; with `--resume_from_checkpoint` the same command goes on from its last checkpoint, if it has saved one"
        )
    elif name in ("compare", "demo", "reproduce", "synthesize"):
        again = "; the same command goes on where it stopped"
    print(f"\nboost-trl {name}: interrupted{again}", file=sys.stderr)
    return 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 2 for an unknown command or bad arguments.

    What is wrong with arguments, files, the model or a checkpoint is one line. An error of the run itself keeps its traceback.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        # Trackers keep the command line.
        sys.argv[1:] = map(without_hub_tokens, arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(import_module("boost_trl").__version__)
        return 0
    name, *rest = with_newest_checkpoint(with_config_apart(arguments))
    if name not in COMMANDS:
        near = nearest_name(name, COMMANDS)
        hint = "" if near is None else f"did you mean `{near}`? "
        print(f"boost-trl: unknown command {name!r}; {hint}`boost-trl --help` lists all", file=sys.stderr)
        return 2
    if rest.count("--config") > 1 or "--config" in rest[-1:]:
        print(f"boost-trl {name}: `--config` must be followed by one YAML file, and given once", file=sys.stderr)
        return 2
    try:
        return run_command(name, rest)
    except KeyboardInterrupt:
        return interrupted(name)


def run_command(name: str, rest: list[str]) -> int:
    """Run the command `name`, or print its help; the exit status."""
    script = import_module(COMMANDS[name][0])
    prog = f"boost-trl {name}"
    if {"-h", "--help", "--help-all"} & set(rest):
        print(command_help(script, prog, everything="--help-all" in rest))
        return 0
    try:
        if hasattr(script, "check_early"):
            script.check_early(rest, prog)
        parser = script.make_parser(prog=prog)
        parser.warns_of_former_names = not hasattr(script, "check_early")  # which has said so
        run = script.prepare(*parser.parse_args_and_config(rest))
    except (ValueError, OSError, TypeError) as error:
        # Options of a model or tokenizer reach its constructor as they are; any other `TypeError` is a bug.
        if isinstance(error, TypeError) and "unexpected keyword argument" not in str(error):
            raise
        return refuse(name, error)
    except Exception as error:
        if not is_connection_error(error):
            raise
        remedy = "leave out what needs it, such as `push_to_hub`, and upload later"
        return refuse(name, f"the Hub cannot be reached ({error}); {remedy}")
    try:
        run()
    except (CheckpointError, AllGamesFailed) as error:
        return refuse(name, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

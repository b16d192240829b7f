"""Options of `boost-trl reproduce`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


AXES = {
    "environment": ("twenty_questions", "car_dealer", "webshop"),
    "algorithm": ("mc", "ilql"),
    "data": ("low", "high"),
}


@dataclass
class ReproduceArguments:
    """Cells of `boost-trl reproduce`, and where they run.

    All options of `boost-trl offline-rl` that describe training and model, and those of the comparison examples, can be
    given too, for example `--model_name_or_path`, `--max_steps` or `--games`.
    """

    all: bool = field(
        default=False, metadata={"help": "Every environment, algorithm and size of the data that is not chosen below."}
    )
    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: list[str] | None = field(
        default=None, metadata={"help": "twenty_questions, car_dealer and webshop, or some of them."}
    )
    algorithm: list[str] | None = field(default=None, metadata={"help": "mc and ilql, by default both."})
    data: list[str] | None = field(
        default=None,
        metadata={
            "help": "low (.025, .1 and .3 of the training rows in the three environments) and high (all rows), by "
            "default both."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2],
        metadata={"help": "Each draws the data and, in two of the environments, the world."},
    )
    methods: list[str] | None = field(
        default=None,
        metadata={
            "help": "Methods, names of boost_trl.comparison.offline_rl.methods, or 'all'; by default the paper's four, "
            "the controls and ours, with the oracles where noise is planted."
        },
    )
    sft: bool = field(
        default=False,
        metadata={
            "help": "Tables 1 to 4 of the paper on selection and self-refining instead, on the embedded pools; of the "
            "options above `seeds` and `methods` apply."
        },
    )
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where cells and report are kept; outputs/reproduce or outputs/reproduce_sft by default."},
    )
    processes: int = field(
        default=1, metadata={"help": "Processes that share the cells, on a machine with as many cores."}
    )
    shard: str | None = field(
        default=None,
        metadata={
            "help": "Run the i-th of n shards of the cells only, as i/n, on any machine that sees `output_dir`; no "
            "report."
        },
    )
    launcher: str | None = field(
        default=None,
        metadata={
            "help": "Hand the cells to jobs: 'slurm', as a job array, or 'local', processes of this machine. Needs "
            "boost_trl[launcher]."
        },
    )
    jobs: int = field(default=4, metadata={"help": "Number of the launcher's jobs, each with its share of the cells."})
    launcher_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Parameters of submitit's AutoExecutor as JSON, such as "
            '\'{"slurm_partition": "gpu", "gpus_per_node": 1}\'.'
        },
    )
    report: bool = field(default=False, metadata={"help": "Write the report of the cells so far; run nothing."})

    def __post_init__(self):
        # An entry of a YAML file that describes one run is a word or a number.
        for name in (*AXES, "seeds", "methods"):
            value = getattr(self, name)
            values = value if isinstance(value, list) or value is None else [value]
            setattr(self, name, values and list(dict.fromkeys(values)))
        self._check_cells()
        if min(self.processes, self.jobs) < 1:
            raise ValueError("`processes` and `jobs` must be at least 1")
        if sum((self.processes > 1, self.shard is not None, self.launcher is not None, self.report)) > 1:
            raise ValueError("`processes`, `shard`, `launcher` and `report` exclude each other: give one of them")
        if self.launcher_options is not None:
            self.launcher_options = self.job_options
            if self.launcher is None:
                raise ValueError(
                    "`launcher_options` are a launcher's: give `--launcher slurm` or `--launcher local` too"
                )
        self.output_dir = self.output_dir or ("outputs/reproduce_sft" if self.sft else "outputs/reproduce")
        if self.folder.is_file():
            raise ValueError(f"`output_dir` must be a folder, but {self.output_dir} is a file")

    @property
    def folder(self) -> Path:
        """`output_dir`, of which `__post_init__` has set the default."""
        return Path(self.output_dir or "")

    @property
    def job_options(self) -> dict[str, Any]:
        """`launcher_options` by name, from a mapping or from JSON.

        Raises:
            ValueError: for what is neither.
        """
        value: Any = self.launcher_options
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"`launcher_options` is no JSON: {error}") from None
        if not isinstance(value, dict | None):
            raise ValueError(f"`launcher_options` must be an object of names and values, got {value}")
        return value or {}

    def _check_cells(self) -> None:
        named = [name for name in AXES if getattr(self, name)]
        if self.sft and (self.all or named):
            raise ValueError(
                f"`--sft` has pools of its own: leave out {', '.join(f'`{name}`' for name in (named or ['all']))}"
            )
        if not (self.environment or self.all or self.sft):
            raise ValueError(
                f"`environment` must name some of {', '.join(AXES['environment'])}; or give `--all`, or `--sft` for the "
                "other paper"
            )
        for name, known in {} if self.sft else AXES.items():
            chosen = getattr(self, name) or list(known)
            if unknown := [str(each) for each in chosen if each not in known]:
                raise ValueError(f"`{name}` must be among {', '.join(known)}, got {', '.join(unknown)}")
            setattr(self, name, chosen)
        if not self.seeds:
            raise ValueError("`seeds` must be at least one number")
        if wrong := [seed for seed in self.seeds if not (isinstance(seed, int) and 0 <= seed < 2**32)]:
            raise ValueError(f"`seeds` must be whole numbers from 0 to 2³² − 1, got {wrong[0]}")

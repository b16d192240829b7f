"""One learned weight per training row."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import CommitInfo
from safetensors.torch import load_file, save_file

from boost_trl.hub_files import find_file, push_files
from boost_trl.selection.choices import OPTIMIZERS, SELECTORS, WEIGHT_SCALES, check_selector_settings
from boost_trl.selection.rules import (
    AdamRule,
    BmoExactRule,
    BmoRule,
    DenseRule,
    FixedRule,
    RankRule,
    Rule,
    SparseRule,
)
from boost_trl.selection.softmax_logits import SoftmaxLogits


logger = logging.getLogger(__name__)

WEIGHTS_NAME = "selector.safetensors"
CONFIG_NAME = "selector_config.json"


class Selector:
    r"""Logits ω over the N rows of a training pool, and the rule by which their losses move them.

    It is plain state on the CPU, outside of any model: every process keeps a copy, gives it the same gathered batch
    and ends with bitwise the same ω. A call to `update` costs O(batch), whatever N is, except for the dense optimizers
    and the refreshes of `"rank"` and `"bmo_exact"`.

    Args:
        num_examples (`int`): N. Rows are named by ids from 0 to N − 1.
        selector (`str`, *optional*, defaults to `"rank"`): `"rank"` (which needs [`~Selector.set_schedule`]), `"bds"`,
            equations (24) and (25), `"bmo"`, equation (28), `"bmo_exact"`, equation (27), `"validated"` (weights that
            [`~Selector.assign`] sets), or the equal weights of `"mixing"` and `"uniform"`. See `docs/selector.md`.
        selector_optimizer (`str`, *optional*, defaults to `"sparse"`): For `"bds"`: `"sparse"` moves the visited rows,
            `"sgd"` and `"adam"` (the paper's) move all.
        selector_learning_rate (`float`, *optional*): a in the equations of `docs/equations.md`. Defaults to 1.0 for
            sparse and sgd, 1e-4 for adam and 0.5 for `"bmo"`.
        selector_max_step (`float`, *optional*, defaults to `1.0`): Largest change of one logit in one update of the
            sparse optimizer.
        bmo_tau (`float`, *optional*, defaults to `1.0`): τ of BMO.
        keep_fraction (`float`, *optional*, defaults to `0.3`): Share of the rows that `"rank"` keeps in the end.
        rank_refresh_steps (`int`, *optional*): Updates between two rankings. Defaults to 1/20 of an epoch.
        weight_scale (`str`, *optional*, defaults to `"mean_one"`): `"mean_one"`: weights N·σ(ω). `"simplex"`: σ(ω),
            the paper's, in the weights and in the gradient.
        min_effective_sample_size (`float`, *optional*, defaults to `0.01`): Warn when n_eff falls below this share of
            N, or below 2 rows (1.5 of only 2). 0: never.
        dataset_fingerprint (`str`, *optional*): Saved with the state, which then loads for the same rows only.

    Raises:
        ValueError: for a value out of its range; the message names the field.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        selector: str = "rank",
        selector_optimizer: str = "sparse",
        selector_learning_rate: float | None = None,
        selector_max_step: float = 1.0,
        bmo_tau: float = 1.0,
        keep_fraction: float = 0.3,
        rank_refresh_steps: int | None = None,
        weight_scale: str = "mean_one",
        min_effective_sample_size: float = 0.01,
        dataset_fingerprint: str | None = None,
    ):
        _check_choice("selector", selector, SELECTORS)
        _check_choice("selector_optimizer", selector_optimizer, OPTIMIZERS)
        _check_choice("weight_scale", weight_scale, WEIGHT_SCALES)
        _check(num_examples >= 1, f"`num_examples` must be at least 1, got {num_examples}")
        self.num_examples = int(num_examples)
        self.selector = selector
        self.selector_optimizer = selector_optimizer
        self.selector_learning_rate = selector_learning_rate
        self.selector_max_step = selector_max_step
        self.bmo_tau = bmo_tau
        self.keep_fraction = keep_fraction
        self.rank_refresh_steps = rank_refresh_steps
        self.weight_scale = weight_scale
        self.min_effective_sample_size = min_effective_sample_size
        self.dataset_fingerprint = dataset_fingerprint
        check_selector_settings(self)
        self._logits = SoftmaxLogits(self.num_examples)
        self._rule = self._make_rule()
        self._num_updates = np.zeros(1, dtype=np.int64)
        self._warned = False

    def _make_rule(self) -> Rule:
        scale = 1.0 if self.weight_scale == "mean_one" else 1.0 / self.num_examples
        rate = self.selector_learning_rate
        if self.selector == "bds":
            if self.selector_optimizer == "sparse":
                return SparseRule(self._logits, scale, 1.0 if rate is None else rate, self.selector_max_step)
            if self.selector_optimizer == "sgd":
                return DenseRule(self._logits, scale, 1.0 if rate is None else rate)
            return AdamRule(self._logits, scale, 1e-4 if rate is None else rate)
        if self.selector == "bmo":
            return BmoRule(self._logits, scale, 0.5 if rate is None else rate, self.bmo_tau)
        if self.selector == "bmo_exact":
            return BmoExactRule(self._logits, scale, self.bmo_tau)
        if self.selector == "rank":
            return RankRule(self._logits, scale, self.keep_fraction)
        if self.selector == "validated":
            return FixedRule(self._logits, scale)
        return Rule(self._logits, scale)

    def set_schedule(self, total_steps: int, steps_per_epoch: float) -> None:
        """Tell how long training lasts, in updates; only `"rank"` needs it, before its first update."""
        _check(total_steps >= 1, f"`total_steps` must be at least 1, got {total_steps}")
        _check(steps_per_epoch > 0, f"`steps_per_epoch` must be positive, got {steps_per_epoch}")
        if isinstance(self._rule, RankRule):
            self._rule.total_steps = int(total_steps)
            self._rule.refresh_steps = self.rank_refresh_steps or max(1, round(steps_per_epoch / 20))

    @property
    def is_learned(self) -> bool:
        """Whether any weight can ever differ from another."""
        return self.selector not in ("mixing", "uniform")

    @property
    def is_fixed(self) -> bool:
        """Whether the weights are set before training, by `assign`, and stay as they are."""
        return self.selector == "validated"

    @property
    def updates_before_weights(self) -> bool:
        """Whether a step's weights are those *after* its own update: equation (28) comes before equation (22)."""
        return self.selector == "bmo"

    @property
    def needs_second_visit(self) -> bool:
        """Whether a row weighs more or less than one from its second visit on only."""
        return self.selector in ("bds", "rank")

    @property
    def num_updates(self) -> int:
        return int(self._num_updates[0])

    def weights(self, ids=None) -> torch.Tensor:
        """The weights of some rows, or of all.

        Args:
            ids (`torch.Tensor` or array of `int`, *optional*): row ids, repeats allowed; all rows by default.

        Returns:
            `torch.Tensor` of float32, the shape of `ids`, on its device. Mean one over all N rows, or, with
            `weight_scale="simplex"`, sum one. A row that no update has visited weighs the mean of those visited: one.
        """
        device = ids.device if isinstance(ids, torch.Tensor) else torch.device("cpu")
        rows = np.arange(self.num_examples) if ids is None else self._check_ids(ids)
        weights = self._rule.scale * self._logits.weights(rows)
        return torch.from_numpy(weights.astype(np.float32)).to(device)

    def logits(self) -> torch.Tensor:
        """ω, float32 (N,): the logarithm of the visited rows' mean exp(ω) where a row was not visited."""
        return torch.from_numpy(self._logits.all_logits())

    def update(self, ids, losses, gamma: float) -> None:
        """Move ω by the rows of one optimizer batch.

        Args:
            ids (`torch.Tensor` or array of `int`): (B,) row ids of the *whole* batch: all micro-batches of all
                processes, in any order. A repeated id is a row that was drawn twice, and counts twice; leave out what
                a sampler repeated only to fill its batch.
            losses (`torch.Tensor` or array of `float`): (B,) each row's mean loss over its tokens, C_b; see
                [`~boost_trl.selection.row_means`].
            gamma (`float`): γ_k, the strength of the penalty.

        Raises:
            ValueError: for an id outside 0…N−1, a loss or `gamma` that is not finite, or unequal lengths.
        """
        rows = self._check_ids(ids).ravel()
        values = _to_numpy(losses).astype(np.float64).ravel()
        _check(len(rows) == len(values), f"`ids` has {len(rows)} rows but `losses` has {len(values)}")
        _check(np.isfinite(gamma) and gamma >= 0, f"`gamma` must be finite and not negative, got {gamma}")
        self._check_losses(rows, values)
        if not len(rows):
            return
        # Sorted by id and value, so that sums are the same bits however the batch was split and gathered.
        order = np.lexsort((values, rows))
        rows, starts, occurrences = np.unique(rows[order], return_index=True, return_counts=True)
        means = np.add.reduceat(values[order], starts) / occurrences
        self._rule.step(rows, means, occurrences, float(gamma))
        self._num_updates += 1
        self._warn_of_collapse()

    def refresh(self, ids, losses) -> None:
        """Set ω = −τL from the losses of the whole pool: equation (27), for `selector="bmo_exact"` only.

        Args:
            ids (`torch.Tensor` or array of `int`): (M,) row ids, all different. Rows that are not here weigh one.
            losses (`torch.Tensor` or array of `float`): (M,) their mean losses.
        """
        if not isinstance(self._rule, BmoExactRule):
            raise ValueError(f'only selector="bmo_exact" is refreshed from the whole pool, not "{self.selector}"')
        rows = self._check_ids(ids).ravel()
        values = _to_numpy(losses).astype(np.float64).ravel()
        _check(len(rows) == len(values), f"`ids` has {len(rows)} rows but `losses` has {len(values)}")
        _check(len(rows) > 0, "`refresh` needs the losses of the pool's rows, got none")
        _check(len(np.unique(rows)) == len(rows), "`refresh` takes each row once, but `ids` repeats some")
        self._check_losses(rows, values)
        self._rule.refresh(rows, values)
        self._warn_of_collapse()

    def assign(self, logits) -> None:
        """Set ω of the whole pool, for `selector="validated"` only: k f of equation (19).

        Args:
            logits (`torch.Tensor` or array of `float`): (N,).

        Raises:
            ValueError: for another selector, another number of rows, or a logit that is not finite.
        """
        if not isinstance(self._rule, FixedRule):
            raise ValueError(f'only selector="validated" is given its logits, not "{self.selector}"')
        values = _to_numpy(logits).astype(np.float64).ravel()
        _check(len(values) == self.num_examples, f"`logits` has {len(values)} rows, not {self.num_examples}")
        bad = np.flatnonzero(~np.isfinite(values))
        _check(not bad.size, f"the logit of row {bad[0] if bad.size else 0} is not finite")
        self._rule.assign(values - values.max(initial=0.0))
        self._warn_of_collapse()

    def effective_sample_size(self) -> float:
        """n_eff = 1/Σσ(ω)², between 1 and N."""
        return self._logits.effective_sample_size()

    def entropy(self) -> float:
        """Entropy of σ(ω) in nats, at most log N."""
        return self._logits.entropy()

    def largest_weight(self) -> float:
        """The largest weight, on the scale of `weights`."""
        return self._rule.scale * self._logits.largest_weight()

    def share_seen(self) -> float:
        """Share of the rows that were in at least one update."""
        return self._rule.num_seen() / self.num_examples

    @property
    def has_collapsed(self) -> bool:
        """n_eff < `min_effective_sample_size`·N, or below 2 rows (1.5 of only 2). Never with a share of 0."""
        share, rows = self.min_effective_sample_size, self.num_examples
        # n_eff is at least 1, so a share of the rows alone would never tell for small N.
        return share > 0 and self.effective_sample_size() < max(share * rows, min(2, (rows + 1) / 2))

    def _warn_of_collapse(self) -> None:
        if not self._warned and self.has_collapsed:
            self._warned = True
            remedy = "Lower `selector_learning_rate`, or `bmo_tau` with BMO."
            if self.is_fixed:
                remedy = "Raise `target_effective_fraction`."
            logger.warning(
                f"The selector has collapsed: its effective sample size is {self.effective_sample_size():.1f} of "
                f"{self.num_examples} rows (`min_effective_sample_size={self.min_effective_sample_size}`). Training now "
                f"sees little else than the rows of largest weight. {remedy}"
            )

    @property
    def config(self) -> dict:
        """Arguments that build this selector again, JSON values only."""
        return {
            "num_examples": self.num_examples,
            "selector": self.selector,
            "selector_optimizer": self.selector_optimizer,
            "selector_learning_rate": self.selector_learning_rate,
            "selector_max_step": self.selector_max_step,
            "bmo_tau": self.bmo_tau,
            "keep_fraction": self.keep_fraction,
            "rank_refresh_steps": self.rank_refresh_steps,
            "weight_scale": self.weight_scale,
            "min_effective_sample_size": self.min_effective_sample_size,
            "dataset_fingerprint": self.dataset_fingerprint,
        }

    def _state(self) -> dict[str, np.ndarray]:
        return {**self._logits.state(), **self._rule.state(), "num_updates": self._num_updates}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that an exact continuation needs beside `config` (and the schedule of `"rank"`): copies, on the CPU."""
        return {name: torch.from_numpy(array.copy()) for name, array in self._state().items()}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: if it belongs to another number of rows or another kind of selector.
        """
        state = self._state()
        if "logits" in state_dict and len(state_dict["logits"]) != self.num_examples:
            raise ValueError(
                f"the saved selector has {len(state_dict['logits'])} rows, but this dataset has {self.num_examples}; "
                "weights belong to the rows that they were learned on: resume with the same dataset"
            )
        if state_dict.keys() != state.keys():
            raise ValueError(
                f"the saved selector has the state {sorted(state_dict)}, but "
                f'selector="{self.selector}", selector_optimizer="{self.selector_optimizer}" needs {sorted(state)}'
            )
        for name, array in state.items():
            array[...] = state_dict[name].cpu().numpy()

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `selector.safetensors` and `selector_config.json`."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS_NAME)
        (folder / CONFIG_NAME).write_text(json.dumps(self.config, indent=2) + "\n")

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None, **commit_kwargs
    ) -> CommitInfo:
        """Upload the two files to a Hub model repository, which is created if needed; its other files stay. A repository
        without a model card gets one that says how to load them.

        Args:
            repo_id (`str`): `"namespace/name"`.
            private (`bool`, *optional*): Visibility of a repository that is created.
            token (`str` or `bool`, *optional*): Hub token; by default the stored login.
            **commit_kwargs:
                `commit_message`, `revision`, `create_pr`, `path_in_repo` of [`~huggingface_hub.HfApi.upload_folder`].
        """
        text = f'Weights of {self.num_examples} training rows (`selector="{self.selector}"`), learned with boost_trl.'
        return push_files(
            self.save_pretrained,
            repo_id,
            loader="boost_trl.selection.Selector",
            text=text,
            private=private,
            token=token,
            **commit_kwargs,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        num_examples: int | None = None,
        dataset_fingerprint: str | None = None,
        **hub_kwargs,
    ) -> "Selector":
        """Load a saved selector.

        Args:
            path (`str` or `Path`): a local folder or a Hub model id.
            num_examples (`int`, *optional*): refuse another N.
            dataset_fingerprint (`str`, *optional*): refuse another dataset.
            **hub_kwargs:
                `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only` of [`~huggingface_hub.hf_hub_download`].

        Raises:
            FileNotFoundError: if a file is missing; the message names it.
            ValueError: if the selector belongs to another number of rows or another dataset.
        """
        config = _read_config(path, **hub_kwargs)
        if num_examples is not None:
            _check_same_rows(config, num_examples)
        _check_same_dataset(config, dataset_fingerprint)
        selector = cls(**config)
        selector.load_state_dict(load_file(find_file(path, WEIGHTS_NAME, **hub_kwargs)))
        return selector

    def resume_from(self, path: str | Path) -> None:
        """Continue this selector from a folder that `save_pretrained` wrote.

        Raises:
            ValueError: if the folder's selector has another N, dataset fingerprint, kind or weight scale.
        """
        config = _read_config(path)
        _check_same_rows(config, self.num_examples)
        _check_same_dataset(config, self.dataset_fingerprint)
        for field in ("selector", "selector_optimizer", "weight_scale"):
            if config[field] != getattr(self, field):
                raise ValueError(
                    f'the selector in {path} was trained with {field}="{config[field]}", not "{getattr(self, field)}"; '
                    f"resume with the same `{field}`, or start afresh"
                )
        self.load_state_dict(load_file(find_file(path, WEIGHTS_NAME)))

    def _check_ids(self, ids) -> np.ndarray:
        rows = _to_numpy(ids)
        if rows.size == 0:
            return rows.astype(np.int64)
        _check(np.issubdtype(rows.dtype, np.integer), f"row ids must be integers, got {rows.dtype}")
        low, high = rows.min(), rows.max()
        if low < 0 or high >= self.num_examples:
            raise ValueError(
                f"row id {low if low < 0 else high} is outside of this selector's rows 0…{self.num_examples - 1}"
            )
        return rows.astype(np.int64)

    def _check_losses(self, rows: np.ndarray, losses: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise ValueError(
                f"the loss of row {rows[bad[0]]} is {losses[bad[0]]} at selector update {self.num_updates + 1} "
                f"({bad.size} of {len(losses)} rows are not finite); no weight can be learned from it: look for "
                "a learning rate that is too high, or for this row's text"
            )


def _to_numpy(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def _check(condition, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"`{field}` must be one of {', '.join(choices)}, got {value!r}")


def _check_same_rows(config: dict, num_examples: int) -> None:
    if config["num_examples"] != num_examples:
        raise ValueError(
            f"the saved selector has {config['num_examples']} rows, but this dataset has {num_examples}; "
            "weights belong to the rows that they were learned on: resume with the same dataset"
        )


def _check_same_dataset(config: dict, fingerprint: str | None) -> None:
    saved = config["dataset_fingerprint"]
    if fingerprint is not None and saved is not None and saved != fingerprint:
        raise ValueError(
            f"the saved selector was learned on the dataset with fingerprint {saved!r}, but this one's is "
            f"{fingerprint!r}: its rows differ, or their order; resume with the same dataset"
        )


def _read_config(path: str | Path, **hub_kwargs) -> dict:
    return json.loads(find_file(path, CONFIG_NAME, **hub_kwargs).read_text())

"""Losses of tokens and, collected over the micro-batches and processes of one optimizer batch, of rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from boost_trl.selection import TokenBaseline, row_means


def token_losses(log_probs: torch.Tensor, loss_type: str) -> torch.Tensor:
    """Losses of tokens as `SFTConfig.loss_type` defines them.

    Args:
        log_probs (`torch.Tensor`): log p of each label, any shape.
        loss_type (`str`): `"nll"`: −log p; `"dft"`: −p log p, with p a constant.

    Returns:
        `torch.Tensor`: the shape of `log_probs`, in nats.
    """
    return -log_probs * log_probs.exp().detach() if loss_type == "dft" else -log_probs


def num_labels(batch: dict[str, Any]) -> int:
    """Tokens of a collated batch that have a loss: all with a label but a row's first, as TRL counts them."""
    return int((batch["labels"][..., 1:] != -100).sum())


def weighting(
    losses: torch.Tensor, kept: torch.Tensor, weights: torch.Tensor, num_items: torch.Tensor | int, scale: int = 1
) -> torch.Tensor:
    """The term that turns TRL's loss, in which every token counts 1, into one in which token t counts w_t: s · Σ_t (w_t − 1) ℓ_t / N.

    TRL computes its loss itself, with its metrics, its normaliser and its auxiliary loss; nothing of it is copied. Where
    all weights are 1 this is exactly 0, so that the run is SFTTrainer's to the last bit. (Scaled log-probabilities handed to
    TRL would be as exact for `loss_type="nll"`, and wrong for `"dft"`, which multiplies them by their exponentials.)

    Args:
        losses (`torch.Tensor`): (B, S) ℓ, 0 where there is none.
        kept (`torch.Tensor`): (B, S) bool, where there is one.
        weights (`torch.Tensor`): (T,) w where `kept` holds.
        num_items (`torch.Tensor` or `int`): N.
        scale (`int`): s.
    """
    # FSDP2 hands out losses in bfloat16, which would round the weights.
    change = torch.zeros_like(losses, dtype=weights.dtype).masked_scatter_(kept, weights - 1)
    return scale * (change * losses).sum() / torch.as_tensor(num_items).clamp(min=1)


class RowLossAccumulator:
    """Sums and counts of token losses per row number, on the CPU, until [`collect`] gathers and divides them.

    A number may come several times: as a row that was drawn again, or as different rows of one source. Their mean is over
    all tokens of theirs, their `"sum"` the mean of the rows' sums, for which [`add_rows`] counts the rows.

    Args:
        accelerator ([`~accelerate.Accelerator`]): for the gathering.
        baseline ([`~boost_trl.selection.TokenBaseline`], *optional*): subtracted from every token's loss.
        reduction (`str`): `"mean"` or `"sum"` over a row's tokens.
        repeat (`bool`): whether a number comes out of [`collect`] as often as [`add_rows`] has counted it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        baseline: TokenBaseline | None = None,
        reduction: str = "mean",
        repeat: bool = False,
    ):
        self.accelerator = accelerator
        self.baseline = baseline
        self.reduction = reduction
        self.repeat = repeat
        self.reset()

    def reset(self) -> None:
        self._pieces: list[torch.Tensor] = []  # (P, 4): row number, summed loss, tokens, rows of this number
        self._token_statistics = torch.zeros(())

    def add_rows(self, ids: torch.Tensor) -> None:
        """Count the rows of one micro-batch: (R,) their numbers, one that comes several times as often."""
        piece = torch.zeros(len(ids), 4, dtype=torch.float64)
        piece[:, 0], piece[:, 3] = ids.cpu(), 1
        self._pieces.append(piece)

    def add(
        self,
        ids: torch.Tensor,
        losses: torch.Tensor,
        tokens: torch.Tensor | None = None,
        shares: torch.Tensor | None = None,
        is_offline: torch.Tensor | None = None,
    ) -> None:
        """The losses of one micro-batch.

        Args:
            ids (`torch.Tensor`): (T,) row number of each token.
            losses (`torch.Tensor`): (T,) its loss.
            tokens (`torch.Tensor`, *optional*): (T,) the token itself, which a baseline needs.
            shares (`torch.Tensor`, *optional*): (T,) what it counts in its row's loss, where that is not 1.
            is_offline (`torch.Tensor`, *optional*): (T,) where it is false, the baseline does not learn from it.
        """
        ids, losses = ids.cpu(), losses.detach().cpu().double()  # MPS has no float64
        if self.baseline is not None:
            assert tokens is not None, "a baseline needs the tokens"
            tokens = tokens.cpu()
            learned = slice(None) if is_offline is None else is_offline.cpu()
            statistics = self.baseline.batch_statistics(tokens[learned], losses[learned])
            self._token_statistics = self._token_statistics + statistics
            losses = losses - self.baseline.lookup(tokens)
        counts = torch.ones_like(losses)
        if shares is not None:
            counts = shares.cpu().double()
            losses = counts * losses
        rows, place = torch.unique(ids, return_inverse=True)
        piece = torch.zeros(len(rows), 4, dtype=torch.float64)
        piece[:, 0] = rows
        piece[:, 1].index_add_(0, place, losses)
        piece[:, 2].index_add_(0, place, counts)
        self._pieces.append(piece)

    def collect(
        self, learn_baseline: bool = True, check: Callable[[np.ndarray, np.ndarray], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of all processes since the last call: their numbers, sorted, all different unless `repeat`, and
        their losses C_b. The same on every process, to the last bit.

        Args:
            learn_baseline (`bool`): whether the baseline takes these tokens in, as it does an optimizer batch.
            check (`Callable`, *optional*): called with both before the baseline takes anything in.
        """
        pieces = torch.cat(self._pieces) if self._pieces else torch.zeros(0, 4, dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            pieces = self.accelerator.pad_across_processes(pieces.to(self.accelerator.device), pad_index=-1)
            pieces = self.accelerator.gather(pieces).cpu()
        ids, sums, counts, times = pieces.numpy().T
        ids = ids.astype(np.int64)
        rows, losses = row_means(ids, sums, counts)
        kept = np.isin(ids, rows)
        places = np.searchsorted(rows, ids[kept])
        tokens, times = (np.bincount(places, part[kept], len(rows)) for part in (counts, times))
        times = np.maximum(times, 1)
        if self.reduction == "sum":
            losses = losses * tokens / times
        if check is not None:
            check(rows, losses)
        if self.baseline is not None and learn_baseline and len(rows):
            statistics = self._token_statistics
            if self.accelerator.num_processes > 1:
                if not statistics.dim():
                    statistics = torch.zeros(2, len(self.baseline.mean), dtype=torch.float64)
                statistics = self.accelerator.reduce(statistics.to(self.accelerator.device), "sum").cpu()
            losses = self.baseline.finish_batch(torch.from_numpy(losses), statistics).numpy()
        self.reset()
        if self.repeat:
            rows, losses = (np.repeat(column, times.astype(np.int64)) for column in (rows, losses))
        return rows, losses

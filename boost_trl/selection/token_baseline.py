"""Running mean of each token's loss, so that a hard word is not mistaken for a bad row."""

import torch
from torch import nn


class TokenBaseline(nn.Module):
    r"""A running mean b[v] of every token's loss over the pool (`selector_baseline="token"`), equations (30) and (31).

    A row's selection loss is then C_b = mean_t(ℓ_bt − b[y_t]). With m and n the mean and the count of token v's losses
    in the whole optimizer batch, b[v] ← 0.9ⁿ b[v] + (1 − 0.9ⁿ) m, after the batch's C_b were taken with the old b. It
    is used shrunk to b̄, the same running mean over all tokens: (c_v b[v] + 10 b̄)/(c_v + 10), c_v the tokens v seen
    so far. A token's mean starts at the b̄ that it was first scored with.

    One optimizer batch goes like this; only the sum over processes is the caller's:

    ```python
    row_loss_sum = (token_losses - baseline.lookup(tokens)).sum()     # every row of every micro-batch
    statistics += baseline.batch_statistics(tokens, token_losses)     # all-reduced over processes at the end
    row_losses = baseline.finish_batch(row_losses, statistics)        # C_b, for `Selector.update`
    ```

    Args:
        vocab_size (`int`): V.
    """

    rate = 0.1
    shrinkage = 10.0

    def __init__(self, vocab_size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(vocab_size))
        self.register_buffer("count", torch.zeros(vocab_size, dtype=torch.int64))
        self.register_buffer("overall_mean", torch.zeros(()))

    @property
    def is_empty(self) -> bool:
        """Whether no batch was seen yet."""
        return not bool(self.count.any())

    def lookup(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The shrunk baseline of each token, float32, the shape of `token_ids`. 0 before the first batch and for
        ignored tokens (negative ids)."""
        known = token_ids.clamp(min=0)
        count = self.count[known]
        value = (count * self.mean[known] + self.shrinkage * self.overall_mean) / (count + self.shrinkage)
        return value.masked_fill(token_ids < 0, 0.0)

    def batch_statistics(self, token_ids: torch.Tensor, token_losses: torch.Tensor) -> torch.Tensor:
        """Sums to add up over micro-batches and processes.

        Args:
            token_ids (`torch.Tensor`): any shape; negative ids (-100) are left out.
            token_losses (`torch.Tensor`): the same shape, raw.

        Returns:
            `torch.Tensor`: (2, V) float64, the summed losses and the count of each token.
        """
        kept = token_ids >= 0
        tokens, losses = token_ids[kept], token_losses.detach()[kept].double()
        statistics = torch.zeros(2, len(self.mean), dtype=torch.float64, device=self.mean.device)
        statistics[0].index_add_(0, tokens, losses)
        statistics[1].index_add_(0, tokens, torch.ones_like(losses))
        return statistics

    @torch.no_grad()
    def finish_batch(self, row_losses: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        """Take the batch into the baseline.

        Args:
            row_losses (`torch.Tensor`): (B,) means of ℓ − `lookup`.
            statistics (`torch.Tensor`): (2, V), [`batch_statistics`] of the whole optimizer batch.

        Returns:
            `torch.Tensor`: (B,) C_b. The same, except before any token was seen: there was nothing to look up, so the
            batch's own mean token loss is subtracted, or the mean of its rows if it has no token to learn from, as
            when the model wrote all of its answers itself.

        Raises:
            ValueError: if a summed loss is not finite.
        """
        if not torch.isfinite(statistics).all():
            token = int((~torch.isfinite(statistics)).any(0).nonzero()[0])
            raise ValueError(f"the loss of token {token} is not finite; its baseline would be lost")
        sums, counts = statistics
        total = counts.sum()
        if total == 0:
            return row_losses - row_losses.mean() if self.is_empty else row_losses
        batch_mean = sums.sum() / total
        first = self.is_empty
        if first:
            self.overall_mean.copy_(batch_mean)
        start = torch.where(self.count > 0, self.mean, self.overall_mean).double()
        kept = (1 - self.rate) ** counts
        self.mean.copy_(torch.where(counts > 0, kept * start + (1 - kept) * sums / counts.clamp(min=1), self.mean))
        self.count += counts.long()
        if first:
            return row_losses - batch_mean.to(row_losses)
        kept = (1 - self.rate) ** total
        self.overall_mean.copy_(kept * self.overall_mean.double() + (1 - kept) * batch_mean)
        return row_losses

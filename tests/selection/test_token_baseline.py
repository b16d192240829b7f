import numpy as np
import pytest
import torch

from boost_trl.selection import TokenBaseline


def run(baseline, rows):
    """C_b of a batch of (tokens, losses) rows, in the order that a trainer does it."""
    statistics = sum(baseline.batch_statistics(tokens, losses) for tokens, losses in rows)
    raw = torch.stack([(losses - baseline.lookup(tokens)).mean() for tokens, losses in rows])
    return baseline.finish_batch(raw, statistics)


def test_follows_its_definition_token_by_token():
    vocab = 6
    baseline = TokenBaseline(vocab)
    b, c, overall = {}, dict.fromkeys(range(vocab), 0), None
    draw = np.random.default_rng(0)
    for _ in range(8):
        rows = [(draw.integers(0, vocab - 1, size), draw.gamma(2, 1, size)) for size in (3, 9, 1)]
        got = run(baseline, [(torch.from_numpy(tokens), torch.from_numpy(losses)) for tokens, losses in rows])

        tokens, losses = (np.concatenate(parts) for parts in zip(*rows))
        if overall is None:
            overall = losses.mean()
            expected = [row_losses.mean() - overall for _, row_losses in rows]
            new_overall = overall
        else:
            used = {v: (c[v] * b.get(v, 0.0) + 10 * overall) / (c[v] + 10) for v in range(vocab)}
            expected = [
                np.mean([loss - used[v] for v, loss in zip(row_tokens, row_losses)]) for row_tokens, row_losses in rows
            ]
            kept = 0.9 ** len(tokens)
            new_overall = kept * overall + (1 - kept) * losses.mean()
        for v in set(tokens):
            kept = 0.9 ** (tokens == v).sum()
            b[v] = kept * b.get(v, overall) + (1 - kept) * losses[tokens == v].mean()
            c[v] += (tokens == v).sum()
        overall = new_overall
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert baseline.mean.dtype == torch.float32
    # The last token never came: it costs what tokens cost on average.
    assert baseline.lookup(torch.tensor(vocab - 1)).item() == pytest.approx(overall, rel=1e-5)


def test_hard_words_are_not_bad_rows():
    """Rows of an expensive word cost 3 each time, rows of a cheap one 1, and one bad row of cheap words costs 2."""
    baseline = TokenBaseline(3)
    for _ in range(200):
        run(
            baseline,
            [(torch.tensor([0, 0]), torch.tensor([3.0, 3.0])), (torch.tensor([1, 1]), torch.tensor([1.0, 1.0]))],
        )
    hard, easy, bad = run(
        baseline,
        [
            (torch.tensor([0, 0]), torch.tensor([3.0, 3.0])),
            (torch.tensor([1, 1]), torch.tensor([1.0, 1.0])),
            (torch.tensor([1, 1]), torch.tensor([2.0, 2.0])),
        ],
    )
    assert abs(hard) < 0.1 and abs(easy) < 0.1 and bad > 0.9


def test_ignored_tokens_are_left_out():
    baseline = TokenBaseline(3)
    statistics = baseline.batch_statistics(torch.tensor([[0, -100], [2, 2]]), torch.tensor([[1.0, 9.0], [2.0, 4.0]]))
    torch.testing.assert_close(statistics, torch.tensor([[1.0, 0, 6], [1, 0, 2]], dtype=torch.float64))
    baseline.finish_batch(torch.zeros(2), statistics)
    assert baseline.lookup(torch.tensor([-100])).item() == 0


def test_state_round_trip():
    first, second = TokenBaseline(5), TokenBaseline(5)
    rows = [(torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 3.0]))]
    run(first, rows)
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(first, rows), run(second, rows))
    assert torch.equal(first.lookup(torch.arange(5)), second.lookup(torch.arange(5)))


def test_empty_batch_and_nan():
    baseline = TokenBaseline(3)
    rows, nothing = torch.tensor([3.5, 4.5]), torch.zeros(2, 3, dtype=torch.float64)
    assert baseline.finish_batch(rows, nothing).tolist() == [-0.5, 0.5]  # as later batches: around 0
    assert baseline.is_empty
    with pytest.raises(ValueError, match="token 1"):
        run(baseline, [(torch.tensor([0, 1]), torch.tensor([1.0, float("nan")]))])
    run(baseline, [(torch.tensor([0]), torch.tensor([4.0]))])
    assert baseline.finish_batch(rows, nothing) is rows

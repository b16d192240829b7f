import pytest
import torch

from boost_trl.losses import trajectory_weights
from boost_trl.models.reweighting_head import ReweightingHead


def randomized(**sizes):
    head = ReweightingHead(7, **sizes)
    torch.nn.init.normal_(head.layers[-1].weight)
    head.fit_standardization(torch.randn(47, 7) * 3 + 5)
    return head


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_training_starts_at_exactly_uniform_weights_and_can_leave_them(depth):
    head = ReweightingHead(7, depth=depth)
    embeddings = torch.randn(8, 7)
    weights = trajectory_weights(head(embeddings))
    assert torch.equal(weights, torch.full((8,), 1 / 8))
    (weights * torch.randn(8)).sum().backward()
    assert head.layers[-1].weight.grad.any()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_scores_equal_a_network_written_out(depth):
    head = randomized(hidden_size=13, depth=depth)
    embeddings = torch.randn(6, 7)
    linear = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [13] * (depth - 1) + [1]
    state = (embeddings - head.embedding_mean) / head.embedding_std
    for layer in linear[:-1]:
        state = (state @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(head(embeddings), (state @ linear[-1].weight.T)[:, 0])


def test_standardization():
    head = ReweightingHead(4)
    embeddings = torch.randn(47, 4) * torch.tensor([1.0, 1e3, 1e-4, 1.0]) + torch.tensor([0.0, -1e3, 5e-4, 0.0])
    embeddings[:, 3] = 0.1
    head.fit_standardization(embeddings)
    standardized = (embeddings - head.embedding_mean) / head.embedding_std
    torch.testing.assert_close(standardized.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert torch.isfinite(standardized).all()
    with pytest.raises(ValueError, match=r"`embeddings` must have shape \(N, 4\)"):
        head.fit_standardization(torch.zeros(3, 5))
    embeddings[5, 1] = torch.nan
    with pytest.raises(ValueError, match="row 5 is not finite"):
        head.fit_standardization(embeddings)


def test_scores_are_float32_under_autocast():
    head, embeddings = randomized(), torch.randn(6, 7).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(embeddings)
    assert scores.dtype == torch.float32 and torch.equal(scores, head(embeddings.float()))


def test_save_and_load(tmp_path):
    head = randomized(hidden_size=13, depth=4)
    (tmp_path / "config.json").write_text("the language model's")
    head.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "reweighting_head.safetensors",
        "reweighting_head_config.json",
    }
    assert (tmp_path / "config.json").read_text() == "the language model's"
    loaded, embeddings = ReweightingHead.from_pretrained(tmp_path), torch.randn(6, 7)
    assert loaded.config == head.config
    assert torch.equal(loaded(embeddings), head(embeddings))


def test_wrong_sizes():
    with pytest.raises(ValueError, match="`depth` must be positive"):
        ReweightingHead(7, depth=0)

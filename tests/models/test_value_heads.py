import json

import pytest
import torch

from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig


DIM, VOCAB = 6, 31


def make_heads(algorithm="mc", dtype=torch.float64, **config):
    heads = ValueHeads(ValueHeadsConfig(algorithm, hidden_size=DIM, vocab_size=VOCAB, **config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*heads.parameters(), *heads.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return heads.to(dtype)


def states(num_tokens=47, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(num_tokens, DIM, generator=generator, dtype=torch.float64).to(dtype)
    return hidden, torch.randint(VOCAB, (num_tokens,), generator=generator)


def all_logits(heads, hidden, prefix=""):
    """(K, T, V), by definition."""
    tensors = heads.state_dict()
    if heads.config.rank is None:
        weight = tensors[prefix + "q_weight"]
    else:
        weight = tensors[prefix + "q_factor_out"] @ tensors[prefix + "q_factor_in"]
    return torch.einsum("td,kvd->ktv", hidden, weight) + tensors[prefix + "q_bias"][:, None]


VARIANTS = [
    {"algorithm": "mc"},
    {"algorithm": "mc", "bias": "token"},
    {"algorithm": "ilql", "with_targets": True},
    {"algorithm": "ilql", "with_targets": True, "rank": 3, "bias": "token"},
    {"algorithm": "ilql", "num_q_heads": 1},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_equal_the_definition(variant):
    heads = make_heads(**variant)
    hidden, actions = states()
    logits = all_logits(heads, hidden)
    index = actions.expand(len(logits), -1).unsqueeze(-1)
    q_taken, q_logsumexp = heads.q_statistics(hidden, actions)
    torch.testing.assert_close(q_taken, logits.gather(-1, index).squeeze(-1))
    torch.testing.assert_close(q_logsumexp, logits.logsumexp(-1))
    torch.testing.assert_close(heads.q_logits(hidden), logits.amin(0))
    torch.testing.assert_close(heads.q_logits(hidden, "mean"), logits.mean(0))
    torch.testing.assert_close(heads.q_logits(hidden, "first"), logits[0])
    prefix = "target_" if heads.config.with_targets else ""
    expected_target = all_logits(heads, hidden, prefix).gather(-1, index).squeeze(-1)
    target = heads.target_q(hidden.requires_grad_(), actions)
    torch.testing.assert_close(target, expected_target)
    assert not target.requires_grad
    if variant["algorithm"] == "ilql":
        torch.testing.assert_close(heads.values(hidden), hidden @ heads.v_weight + heads.v_bias)
    else:
        with pytest.raises(ValueError, match="no V head"):
            heads.values(hidden)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter_but_no_target(variant):
    heads = make_heads(**variant)
    hidden, actions = states()
    q_taken, q_logsumexp = heads.q_statistics(hidden, actions)
    loss = (q_logsumexp.square() - q_taken).sum()
    logits = all_logits_with_gradient(heads, hidden)
    taken = logits.gather(-1, actions.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    expected_loss = (logits.logsumexp(-1).square() - taken).sum()
    parameters = [parameter for name, parameter in heads.named_parameters() if name.startswith("q_")]
    for got, expected in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected_loss, parameters)):
        torch.testing.assert_close(got, expected)
    assert not any(name.startswith("target") for name, _ in heads.named_parameters())


def all_logits_with_gradient(heads, hidden):
    weight = heads.q_weight if heads.config.rank is None else heads.q_factor_out @ heads.q_factor_in
    return torch.einsum("td,kvd->ktv", hidden, weight) + heads.q_bias[:, None]


def test_low_precision_states_and_autocast_give_float32_values():
    heads = make_heads("ilql", dtype=torch.float32, with_targets=True, rank=3)
    hidden, actions = states(dtype=torch.bfloat16)
    exact = hidden.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = (*heads.q_statistics(hidden, actions), heads.values(hidden), heads.target_q(hidden, actions))
        got += (heads.q_logits(hidden),)
    expected = (*heads.q_statistics(exact, actions), heads.values(exact), heads.target_q(exact, actions))
    expected += (heads.q_logits(exact),)
    for one, other in zip(got, expected):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rank", [None, 3])
def test_heads_that_an_engine_cast_to_bfloat16_still_compute_in_float32(rank):
    heads = make_heads("ilql", dtype=torch.bfloat16, with_targets=True, rank=rank)
    exact = make_heads("ilql", dtype=torch.float32, with_targets=True, rank=rank)
    exact.load_state_dict(heads.state_dict())
    hidden, actions = states(dtype=torch.bfloat16)
    for name, arguments in (("q_statistics", (actions,)), ("target_q", (actions,)), ("values", ()), ("q_logits", ())):
        got, expected = getattr(heads, name)(hidden, *arguments), getattr(exact, name)(hidden, *arguments)
        torch.testing.assert_close(got, expected)


def test_q_logits_keep_leading_dimensions():
    heads = make_heads("ilql")
    hidden = states(12)[0]
    torch.testing.assert_close(heads.q_logits(hidden.view(3, 4, DIM)), heads.q_logits(hidden).view(3, 4, VOCAB))
    torch.testing.assert_close(heads.values(hidden.view(3, 4, DIM)), heads.values(hidden).view(3, 4))


def test_polyak_step_towards_heads_that_an_engine_has_cast():
    """DeepSpeed with bf16 casts parameters and leaves buffers float32, where small steps do not round to none."""
    heads = make_heads("ilql", dtype=torch.float32, with_targets=True)
    heads.q_weight.data = heads.q_weight.data.bfloat16()
    heads.q_bias.data = heads.q_bias.data.bfloat16()
    before = heads.target_q_weight.double()
    for _ in range(3):
        heads.update_targets(0.001)
    expected = heads.q_weight.double() + 0.999**3 * (before - heads.q_weight.double())
    assert heads.target_q_weight.dtype == torch.float32
    torch.testing.assert_close(heads.target_q_weight.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 3])
def test_polyak_step_and_copy(rank):
    heads, other = make_heads("ilql", with_targets=True, rank=rank), make_heads("ilql", with_targets=True, rank=rank)
    before = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
    heads.update_targets(0.25)
    after = heads.state_dict()
    for name in before:
        expected = before[name]
        if name.startswith("target_"):
            expected = 0.75 * before[name] + 0.25 * before[name.removeprefix("target_")]
        torch.testing.assert_close(after[name], expected)
    storage = {name: tensor.data_ptr() for name, tensor in other.state_dict().items()}
    other.copy_from(heads)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, after[name]) and tensor.data_ptr() == storage[name]


class TestInitialization:
    def test_softmax_of_q_is_the_language_model(self):
        heads = make_heads("mc", dtype=torch.float32, bias="token")
        lm_head, hidden = torch.randn(VOCAB, DIM) + 5, states(dtype=torch.float32)[0]
        heads.initialize_from_lm_head(lm_head, logit_scale=0.5)
        expected = (0.5 * hidden @ lm_head.T).log_softmax(-1)
        torch.testing.assert_close(heads.q_logits(hidden).log_softmax(-1), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.q_weight.mean(1), torch.zeros(1, DIM), atol=1e-6, rtol=0)

    def test_twins_differ_a_little_and_targets_equal_them(self):
        heads = make_heads("ilql", dtype=torch.float32, with_targets=True)
        lm_head = torch.randn(VOCAB, DIM)
        heads.initialize_from_lm_head(lm_head, generator=torch.Generator().manual_seed(3))
        centred = lm_head - lm_head.mean(0)
        for head in heads.q_weight:
            distance = (head - centred).norm() / centred.norm()
            assert 0.005 < distance < 0.02
        assert not torch.equal(heads.q_weight[0], heads.q_weight[1])
        assert torch.equal(heads.target_q_weight, heads.q_weight)
        assert not heads.v_weight.any() and not heads.v_bias.any() and not heads.q_bias.any()
        again = make_heads("ilql", dtype=torch.float32, with_targets=True)
        again.initialize_from_lm_head(lm_head, generator=torch.Generator().manual_seed(3))
        assert torch.equal(again.q_weight, heads.q_weight)

    @pytest.mark.parametrize("rank", [1, 3, DIM, DIM + 2])
    def test_low_rank_is_the_truncated_svd(self, rank):
        heads = make_heads("mc", dtype=torch.float32, rank=rank)
        lm_head = torch.randn(VOCAB, DIM)
        heads.initialize_from_lm_head(lm_head)
        left, singular, right = torch.linalg.svd(lm_head - lm_head.mean(0), full_matrices=False)
        kept = min(rank, DIM)
        expected = left[:, :kept] * singular[:kept] @ right[:kept]
        torch.testing.assert_close(heads.folded("first")[0], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("rank", [None, 16])
    def test_random(self, rank):
        heads = ValueHeads(ValueHeadsConfig("ilql", 64, 500, rank=rank, with_targets=True))
        heads.initialize_random(std=0.05, generator=torch.Generator().manual_seed(0))
        weight = heads.q_weight if rank is None else heads.q_factor_out @ heads.q_factor_in
        assert weight.std().item() == pytest.approx(0.05, rel=0.05)
        assert not torch.equal(weight[0], weight[1]) and not heads.q_bias.any()
        hidden, actions = torch.randn(5, 64), torch.arange(5)
        torch.testing.assert_close(heads.target_q(hidden, actions), heads.q_statistics(hidden, actions)[0].detach())

    def test_shift_bias(self):
        heads = make_heads("ilql", with_targets=True)
        hidden, actions = states()
        before = heads.q_statistics(hidden, actions)[0], heads.target_q(hidden, actions), heads.values(hidden)
        heads.shift_bias(torch.tensor([2.0, -1.0]), value_delta=0.5)
        delta = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
        torch.testing.assert_close(heads.q_statistics(hidden, actions)[0], before[0] + delta)
        torch.testing.assert_close(heads.target_q(hidden, actions), before[1] + delta)
        torch.testing.assert_close(heads.values(hidden), before[2] + 0.5)
        heads.shift_bias(1.0)
        torch.testing.assert_close(heads.q_statistics(hidden, actions)[0], before[0] + delta + 1)

    def test_wrong_output_matrix(self):
        with pytest.raises(ValueError, match=r"output matrix must have shape .*\(31, 6\), got \(30, 6\)"):
            make_heads().initialize_from_lm_head(torch.zeros(30, DIM))


class TestSaving:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_save_and_load(self, variant, tmp_path):
        heads = make_heads(**variant, return_shift=-3.0, return_scale=2.5, dtype=torch.float32)
        heads.save_pretrained(tmp_path / "new")
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
            "value_heads.safetensors",
            "value_heads_config.json",
        ]
        loaded = ValueHeads.from_pretrained(tmp_path / "new")
        assert loaded.config == heads.config
        assert loaded.state_dict().keys() == heads.state_dict().keys()
        for name, tensor in heads.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)

    def test_a_newer_field_is_dropped_with_a_warning(self, tmp_path):
        make_heads(dtype=torch.float32).save_pretrained(tmp_path)
        file = tmp_path / "value_heads_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"from_the_future": 1, "boost_trl_version": "9.9"}))
        with pytest.warns(UserWarning, match="from_the_future.*9.9"):
            ValueHeads.from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", ["value_heads.safetensors", "value_heads_config.json"])
    def test_a_missing_file_is_named(self, name, tmp_path):
        make_heads(dtype=torch.float32).save_pretrained(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            ValueHeads.from_pretrained(tmp_path)

    def test_weights_of_another_shape_are_refused(self, tmp_path):
        make_heads(dtype=torch.float32).save_pretrained(tmp_path)
        file = tmp_path / "value_heads_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 30}))
        with pytest.raises(ValueError, match="value_heads.safetensors does not fit value_heads_config.json"):
            ValueHeads.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"algorithm": "dqn"}, "`algorithm` must be"),
        ({"bias": "vector"}, "`bias` must be"),
        ({"rank": 0}, "`rank` must be positive"),
        ({"vocab_size": 0}, "`vocab_size` must be positive"),
    ],
)
def test_wrong_configuration(values, message):
    with pytest.raises(ValueError, match=message):
        ValueHeadsConfig(**({"algorithm": "mc", "hidden_size": DIM, "vocab_size": VOCAB} | values))

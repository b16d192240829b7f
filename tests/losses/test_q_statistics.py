import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from boost_trl.losses import q_statistics, q_values_of


def make_inputs(num_tokens, vocab_size, dim=7, heads=None, bias=None, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    stack = () if heads is None else (heads,)
    hidden, weight = normal(num_tokens, dim), normal(*stack, vocab_size, dim)
    bias = {None: None, "scalar": (*stack, 1), "token": (*stack, vocab_size)}[bias]
    actions = torch.randint(vocab_size, (num_tokens,), generator=generator)
    return hidden, weight, None if bias is None else normal(*bias), actions


def reference(hidden, weight, bias, actions):
    """The definition, with all logits at once and autograd's gradients."""
    logits = torch.einsum("td,...vd->...tv", hidden, weight)
    if bias is not None:
        logits = logits + bias.unsqueeze(-2)
    index = actions.expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1), logits.logsumexp(-1)


def gradients(function, inputs, taken_grad, logsumexp_grad):
    leaves = [tensor for tensor in inputs[:3] if tensor is not None]
    taken, logsumexp = function(*inputs)
    return torch.autograd.grad((taken * taken_grad).sum() + (logsumexp * logsumexp_grad).sum(), leaves)


@pytest.mark.parametrize("bias", [None, "scalar", "token"])
@pytest.mark.parametrize("heads", [None, 1, 2])
@pytest.mark.parametrize("num_tokens, vocab_size", [(1, 31), (47, 123), (64, 31)])
@pytest.mark.parametrize("chunk_size", [None, 13, 100, 47 * 41])
def test_values_and_gradients_equal_the_definition(num_tokens, vocab_size, heads, bias, chunk_size):
    inputs = make_inputs(num_tokens, vocab_size, heads=heads, bias=bias)
    got = q_statistics(*inputs, chunk_size=chunk_size)
    expected = reference(*inputs)
    for got_value, expected_value in zip(got, expected):
        assert got_value.shape == (() if heads is None else (heads,)) + (num_tokens,)
        torch.testing.assert_close(got_value, expected_value, rtol=1e-12, atol=1e-12)
    upstream = [torch.randn_like(value) for value in expected]
    got_grads = gradients(lambda *x: q_statistics(*x, chunk_size=chunk_size), inputs, *upstream)
    for got_grad, expected_grad in zip(got_grads, gradients(reference, inputs, *upstream)):
        torch.testing.assert_close(got_grad, expected_grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("heads, bias", [(None, "token"), (2, "scalar")])
def test_gradcheck(heads, bias):
    hidden, weight, bias, actions = make_inputs(5, 9, dim=3, heads=heads, bias=bias)
    assert torch.autograd.gradcheck(
        lambda h, w, b: q_statistics(h, w, b, actions, chunk_size=11), (hidden, weight, bias)
    )


def ahead(share, **options):
    return lambda *inputs: q_statistics(*inputs, logsumexp_grad=share, **options)


@pytest.mark.parametrize("bias", [None, "scalar", "token"])
@pytest.mark.parametrize("heads", [None, 1, 2])
@pytest.mark.parametrize("num_tokens, vocab_size", [(1, 31), (47, 123), (64, 31)])
@pytest.mark.parametrize("chunk_size", [None, 13, 300])
def test_gradients_taken_ahead_equal_the_definition(num_tokens, vocab_size, heads, bias, chunk_size):
    inputs = make_inputs(num_tokens, vocab_size, heads=heads, bias=bias)
    expected = reference(*inputs)
    share = torch.rand(num_tokens, dtype=torch.float64)
    share[0] = 0
    got = q_statistics(*inputs, logsumexp_grad=share, chunk_size=chunk_size)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    # The objective is a multiple of what was announced, and anything at all in the actions' values.
    upstream = torch.randn_like(expected[0]), 65536 * share.expand_as(expected[1])
    got_grads = gradients(ahead(share, chunk_size=chunk_size), inputs, *upstream)
    for got_grad, expected_grad in zip(got_grads, gradients(reference, inputs, *upstream)):
        torch.testing.assert_close(got_grad, expected_grad, rtol=1e-11, atol=1e-8)


def test_gradients_taken_ahead_are_used_once_and_checked():
    inputs = make_inputs(6, 31, heads=2)
    share = torch.arange(6.0)
    with pytest.raises(RuntimeError, match="is not the gradient of the objective"):
        gradients(ahead(share), inputs, torch.zeros(2, 6), torch.ones(2, 6))
    with pytest.raises(RuntimeError, match="is not the gradient of the objective"):
        gradients(ahead(share), inputs, torch.zeros(2, 6), torch.stack([share, 2 * share]))
    with pytest.raises(RuntimeError, match="is not the gradient of the objective"):
        gradients(ahead(torch.zeros(6)), inputs, torch.zeros(2, 6), torch.ones(2, 6))
    with pytest.raises(ValueError, match="one number per token"):
        q_statistics(*inputs, logsumexp_grad=share[:-1])
    taken, logsumexp = q_statistics(*inputs, logsumexp_grad=share)
    loss = (taken + share * logsumexp).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        loss.backward()


def test_gradients_taken_ahead_of_an_objective_without_the_logsumexp():
    inputs = make_inputs(6, 31, bias="token")
    ones, zeros = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    got = gradients(ahead(zeros), inputs, ones, zeros)
    torch.testing.assert_close(got, gradients(reference, inputs, ones, zeros))


def test_gradients_taken_ahead_are_only_those_that_are_needed():
    hidden, weight, bias, actions = make_inputs(6, 31, bias="token")
    share = torch.ones(6, dtype=torch.float64)
    for needed in (hidden, weight, bias):
        inputs = [tensor if tensor is needed else tensor.detach() for tensor in (hidden, weight, bias)]
        taken, logsumexp = q_statistics(*inputs, actions, logsumexp_grad=share)
        (got,) = torch.autograd.grad((taken + logsumexp).sum(), needed)
        taken, logsumexp = reference(*inputs, actions)
        torch.testing.assert_close(got, torch.autograd.grad((taken + logsumexp).sum(), needed)[0])
    with torch.no_grad():
        assert not q_statistics(hidden, weight, bias, actions, logsumexp_grad=share)[0].requires_grad


def test_more_tokens_than_one_block_of_tokens():
    inputs = make_inputs(5000, 5, dim=2, bias="token")
    torch.testing.assert_close(q_statistics(*inputs), reference(*inputs))
    ones = torch.ones(5000, dtype=torch.float64)
    for got, expected in zip(gradients(q_statistics, inputs, ones, ones), gradients(reference, inputs, ones, ones)):
        torch.testing.assert_close(got, expected)


def test_large_logits_do_not_overflow():
    hidden, weight, _, actions = make_inputs(9, 31, dtype=torch.float32)
    taken, logsumexp = q_statistics(hidden * 1e3, weight, None, actions, chunk_size=50)
    torch.testing.assert_close((taken, logsumexp), reference(hidden * 1e3, weight, None, actions))
    assert torch.isfinite(logsumexp).all() and (logsumexp >= taken).all()


@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_states_are_computed_in_float32(weight_dtype, is_ahead):
    hidden, weight, bias, actions = make_inputs(47, 123, dim=64, heads=2, bias="token", dtype=torch.float32)
    inputs = [tensor.detach().requires_grad_() for tensor in (hidden.bfloat16(), weight.to(weight_dtype), bias)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    got, expected = q_statistics(*inputs, actions), reference(*exact, actions)
    for got_value, expected_value in zip(got, expected):
        assert got_value.dtype == torch.float32
        torch.testing.assert_close(got_value.double(), expected_value, rtol=1e-5, atol=1e-4)
    upstream = torch.randn(2, 47), torch.randn(47).expand(2, 47)
    function = ahead(upstream[1][0]) if is_ahead else q_statistics
    got_grads = gradients(function, (*inputs, actions), *upstream)
    expected_grads = gradients(reference, (*exact, actions), *(grad.double() for grad in upstream))
    for leaf, got_grad, expected_grad in zip(inputs, got_grads, expected_grads):
        assert got_grad.dtype == leaf.dtype
        rounding = {"rtol": 2**-8, "atol": 1e-3} if leaf.dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-4}
        torch.testing.assert_close(got_grad.double(), expected_grad, **rounding)


def test_autocast_changes_nothing():
    inputs = make_inputs(47, 123, heads=2, bias="token", dtype=torch.float32)
    upstream = [torch.randn(2, 47) for _ in range(2)]
    plain, plain_grads = q_statistics(*inputs), gradients(q_statistics, inputs, *upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, mixed_grads = q_statistics(*inputs), gradients(q_statistics, inputs, *upstream)
        row_gather = q_values_of(*inputs)
    for one, other in zip((*plain, *plain_grads), (*mixed, *mixed_grads)):
        assert torch.equal(one, other)
    torch.testing.assert_close(row_gather, plain[0])


def test_only_needed_gradients_are_computed():
    hidden, weight, bias, actions = make_inputs(6, 31, bias="token")
    taken, logsumexp = q_statistics(hidden.detach(), weight, bias.detach(), actions)
    (taken + logsumexp).sum().backward()
    assert hidden.grad is None and bias.grad is None and weight.grad is not None
    taken, logsumexp = q_statistics(hidden, weight.detach(), None, actions)
    (taken + logsumexp).sum().backward()
    assert hidden.grad is not None
    assert not q_statistics(hidden.detach(), weight.detach(), None, actions)[0].requires_grad


def test_gradient_through_one_output_only():
    inputs = make_inputs(8, 31, bias="token")
    for index in range(2):
        got = torch.autograd.grad(q_statistics(*inputs)[index].sum(), inputs[:2])
        expected = torch.autograd.grad(reference(*inputs)[index].sum(), inputs[:2])
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_no_tokens(heads, is_ahead):
    hidden, weight, bias, actions = make_inputs(0, 31, heads=heads, bias="token")
    taken, logsumexp = q_statistics(hidden, weight, bias, actions, logsumexp_grad=torch.ones(0) if is_ahead else None)
    assert taken.shape == logsumexp.shape == ((0,) if heads is None else (2, 0))
    (taken.sum() + logsumexp.sum()).backward()
    assert not weight.grad.any() and not bias.grad.any()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("chunk_size, largest_logits", [(None, 1024 * 6000 // 4), (5000, 6000)])
def test_logits_of_the_whole_batch_never_exist(chunk_size, largest_logits, is_ahead):
    num_tokens, vocab_size, dim = 1024, 6000, 4
    hidden, weight, bias, actions = make_inputs(
        num_tokens, vocab_size, dim, heads=2, bias="token", dtype=torch.float32
    )
    limit = max(largest_logits, weight.numel())
    saved = []
    with (
        LargestTensor() as mode,
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        share = torch.ones(num_tokens) if is_ahead else None
        taken, logsumexp = q_statistics(hidden, weight, bias, actions, logsumexp_grad=share, chunk_size=chunk_size)
        (logsumexp - taken).sum().backward()
    assert limit <= num_tokens * vocab_size / 4
    assert mode.elements <= limit and max(saved) <= weight.numel()


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("bias", [None, "scalar", "token"])
def test_row_gather_equals_the_taken_value(heads, bias):
    inputs = make_inputs(47, 31, heads=heads, bias=bias)
    got, expected = q_values_of(*inputs), reference(*inputs)[0]
    torch.testing.assert_close(got, expected)
    upstream = torch.randn_like(expected)
    for got_grad, expected_grad in zip(
        torch.autograd.grad((got * upstream).sum(), [x for x in inputs[:3] if x is not None]),
        torch.autograd.grad((expected * upstream).sum(), [x for x in inputs[:3] if x is not None]),
    ):
        torch.testing.assert_close(got_grad, expected_grad)


@pytest.mark.parametrize("function", [q_statistics, q_values_of])
def test_wrong_shapes_are_named(function):
    hidden, weight, bias, actions = make_inputs(6, 31, bias="token")
    with pytest.raises(ValueError, match="`hidden` must have shape"):
        function(hidden[:, :-1], weight, bias, actions)
    with pytest.raises(ValueError, match="`hidden` must have shape"):
        function(hidden[0], weight, bias, actions)
    with pytest.raises(ValueError, match="one token id per state"):
        function(hidden, weight, bias, actions[:-1])
    with pytest.raises(ValueError, match="one token id per state"):
        function(hidden, weight, bias, actions.double())
    with pytest.raises(ValueError, match="`bias` must be None"):
        function(hidden, weight, bias[:-1], actions)
    with pytest.raises(ValueError, match="`bias` must be None"):
        function(hidden, weight.expand(2, -1, -1), bias, actions)
    for wrong in (-100, 31):
        with pytest.raises(ValueError, match="token ids from 0 to 30"):
            function(hidden, weight, bias, torch.full_like(actions, wrong))

"""Answers by vLLM, with TRL's generation layer replaced by one that follows its rules: nothing here runs vLLM."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import trl.generation.vllm_generation as generation_layer
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer

import boost_trl.trainer.sft.checks as checks
import boost_trl.trainer.sft.generation as generation
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.sft.generation import VLLMAnswers


EOS = 1
TRLS = generation_layer.VLLMGeneration


class Engine:
    """What the trainer calls; answers tell which weights they were sampled with."""

    def __init__(self, model, **kwargs):
        inspect.signature(TRLS.__init__).bind(None, model, **kwargs)
        self.model, self.kwargs, self.events, self.synced = model, kwargs, [], None
        torch.rand(3)  # an engine seeds and draws as it likes

    def sync_weights(self):
        self.synced = self.model.lm_head.weight.detach().clone()
        self.events.append("sync")

    def generate(self, prompts, images, num_generations, profiler=None):
        assert torch.equal(self.synced, self.model.lm_head.weight)
        assert images is None and len(prompts) % num_generations == 0
        self.events.append(prompts)
        torch.rand(3)
        replies = [(4 + sum(prompt) % 40, 4 + number % 40, EOS, 9, 9) for number, prompt in enumerate(prompts)]
        return prompts, replies, None, None


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(generation_layer, "VLLMGeneration", Engine)
    monkeypatch.setattr(checks, "is_vllm_available", lambda: True)


def make_trainer(folder, **overrides):
    settings = {"online_ratio": 0.5, "num_generations": 2, "generation_interval": 2, "max_generation_length": 6}
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, **{"max_steps": 5, **settings, **overrides}),
        train_dataset=make_pairs(16),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )


def test_weights_are_given_once_before_each_refresh_and_answers_are_trained_on(engine, tmp_path):
    trainer = make_trainer(tmp_path, use_vllm=True, online_ratio=0.75)
    trainer.model.generate = None  # transformers is not asked
    trainer.train()
    events = trainer._refinement.generator.vllm.engine.events
    assert [event == "sync" for event in events] == [True, False] * 3
    answers = trainer._refinement.answers
    assert answers.step == 4 and len(answers.tokens) == 2 * len(answers.rows) > 0
    assert all(tokens[-1] == EOS and len(tokens) == 3 for tokens in answers.tokens)
    # Every question comes twice in a row, once for each of its answers.
    assert all(event[::2] == event[1::2] for event in events if event != "sync")
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["online/age"] for entry in logs] == [0, 1, 0, 1, 0]
    assert logs[0]["online/ratio_max"] == 1 and logs[1]["online/ratio_max"] != 1


def test_the_engine_is_built_from_the_arguments_and_draws_apart(engine, tmp_path):
    trainer = make_trainer(
        tmp_path,
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url="http://there:1",
        generation_temperature=0.7,
        generation_batch_size=5,
    )
    kwargs = trainer._refinement.generator.vllm.engine.kwargs
    assert kwargs["mode"] == "server" and kwargs["server_base_url"] == "http://there:1"
    assert kwargs["temperature"] == 0.7 and kwargs["max_completion_length"] == 6 and kwargs["max_num_seqs"] == 5
    assert kwargs["generation_kwargs"] == {"stop_token_ids": [EOS]}
    assert not {"top_p", "top_k", "min_p", "repetition_penalty"} & kwargs.keys()  # the defaults bend nothing
    before = torch.get_rng_state()
    trainer._refinement.generator.generate([[5, 6]] * 2, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_questions_without_room_are_not_asked_and_answers_stay_within(engine, tmp_path):
    trainer = make_trainer(tmp_path, use_vllm=True, vllm_max_model_length=4)
    questions = [question for question in ([5] * 4, [5] * 3, [5]) for _ in range(2)]
    answers = trainer._refinement.generator.generate(questions, 0)
    assert [len(answer) for answer in answers] == [0, 0, 1, 1, 3, 3]
    assert trainer._refinement.generator.vllm.engine.events[-1] == [[5] * 3] * 2 + [[5]] * 2


@pytest.mark.parametrize("count", [1, 3, 7])
def test_processes_take_equal_shares(count, engine, monkeypatch):
    """TRL's server mode gathers the prompts and deals the replies out by position: shares of one length."""
    monkeypatch.setattr(generation, "gather_object", lambda answers: answers)  # each process's own
    questions = [[5 + number] for number in range(count) for _ in range(2)]
    prompts, answers = [], []
    for rank in range(3):
        args = make_args("unused", online_ratio=0.1, num_generations=2, use_vllm=True)
        accelerator = SimpleNamespace(
            num_processes=3, process_index=rank, device=torch.device("cpu"), unwrap_model=lambda model: model
        )
        vllm = VLLMAnswers(make_model(), args, accelerator, SimpleNamespace(eos_token_id=EOS))
        answers += vllm.generate(questions)
        prompts.append(vllm.engine.events[-1])
    assert len({len(share) for share in prompts}) == 1
    assert sum(prompts, [])[: len(questions)] == questions
    # Each reply begins with a mark of its question, so it went back to where it was asked.
    assert [answer[0] for answer in answers[: len(questions)]] == [4 + sum(question) for question in questions]


def test_without_vllm_the_error_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "is_vllm_available", lambda: False)
    with pytest.raises(ImportError, match=r"pip install trl\[vllm\]"):
        make_trainer(tmp_path, use_vllm=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vllm_mode": "remote"}, "must be one of 'colocate', 'server'"),
        ({"online_ratio": 0.0, "num_generations": 1}, "use_vllm=True have no effect"),
    ],
)
def test_senseless_settings_raise(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, use_vllm=True, **options)


def test_trls_layer_has_what_is_called():
    """The constructor's arguments are bound to TRL's signature by `Engine`."""
    generate = inspect.signature(TRLS.generate).parameters
    assert list(generate)[1:4] == ["prompts", "images", "num_generations"]
    assert list(inspect.signature(TRLS.sync_weights).parameters) == ["self"]
    assert inspect.signature(TRLS.__init__).parameters["top_p"].default == 1.0
    assert inspect.signature(TRLS.__init__).parameters["top_k"].default == 0

"""Our environments under TRL's real GRPOTrainer, and the facts of its contracts that the adapters rest on."""

import copy
import inspect
import json
import pickle
from pathlib import Path

import pytest
import torch
import trl
from datasets import concatenate_datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toy_game import GuessNumber
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from boost_trl.environments.adapters.trl_episode import grpo_rows
from boost_trl.environments.adapters.trl_rollout import as_rollout_func, env_reward
from boost_trl.environments.adapters.trl_tools import ToolEnvironment, as_environment_factory
from boost_trl.environments.base import make_env


@pytest.fixture(scope="module")
def tokenizer():
    """One token per byte and Qwen3's template, for which TRL knows how tool calls are read."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return tokenizer


class ScriptedQwen3(Qwen3ForCausalLM):
    """Random weights; `script(contexts)`, if set, writes the turns, so that a test knows what is played."""

    script = None

    def generate(self, input_ids, attention_mask, generation_config, **kwargs):
        if self.script is None:
            return super().generate(
                input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **kwargs
            )
        contexts = [self.tokenizer.decode(row[mask.bool()]) for row, mask in zip(input_ids, attention_mask)]
        turns = [self.tokenizer(turn + "<|im_end|>")["input_ids"] for turn in self.script(contexts)]
        width = max(map(len, turns))
        turns = [turn + [self.tokenizer.pad_token_id] * (width - len(turn)) for turn in turns]
        return torch.cat([input_ids, torch.tensor(turns)], dim=1)


def tiny_qwen3(tokenizer, script=None):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = ScriptedQwen3(config)
    model.tokenizer, model.script = tokenizer, script
    return model


@pytest.fixture
def grpo(tokenizer, tmp_path, monkeypatch):
    """A function that makes a GRPOTrainer for one step of two rows, two generations each."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def make(rows, script=None, reward_funcs=None, rows_per_step=1, max_completion_length=4096, **kwargs):
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2 * rows_per_step,
            num_generations=2,
            max_steps=1,
            learning_rate=1e-2,
            max_completion_length=max_completion_length,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        )
        return GRPOTrainer(
            tiny_qwen3(tokenizer, script),
            reward_funcs,
            args,
            rows,
            processing_class=copy.deepcopy(tokenizer),
            **kwargs,
        )

    return make


def moved(trainer):
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())


def logged(trainer, key):
    return next(entry[key] for entry in trainer.state.log_history if key in entry)


def call(tool, argument, value):
    return "<tool_call>\n" + json.dumps({"name": tool, "arguments": {argument: value}}) + "\n</tool_call>"


SALE = ["has camera", "price 88", "price 86", "price 84"]
# Environment, task, tools' class, tool calls that end its game with a reward, and the same in its own words.
GAMES = {
    "twenty_questions": (
        lambda: make_env("twenty_questions"),
        "metals/one",
        "TwentyQuestionsTools",
        [call("ask", "question", "very heavy?"), call("guess", "item", "number one")],
        ["very heavy?", "number one?"],
    ),
    "car_dealer": (
        lambda: make_env("car_dealer", world="small"),
        "volkswagen-0002",
        "CarDealerTools",
        [call("say", "utterance", words) for words in SALE],
        SALE,
    ),
    "webshop": (
        lambda: make_env("webshop", catalogue="small"),
        "webshop-00000",
        "WebShopTools",
        [call("search", "keywords", "mouse"), call("click", "name", "1"), call("click", "name", "Buy Now")],
        ["search mouse", "click 1", "click buy now"],
    ),
}


def play(env, task, seed, actions):
    """Observations and sum of the last info's numbers that count, played without any adapter."""
    observations = [env.reset(seed=seed, task=task)[0]]
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        observations.append(observation)
        if terminated or truncated:
            return observations, info.get("discounted_score", info["score"])
    raise AssertionError(f"the game is not over: {observations}")


@pytest.mark.parametrize("name", GAMES)
def test_one_step_with_tools(name, grpo):
    make, task_id, reward_name, calls, actions = GAMES[name]
    env = make()
    task = next(task for task in env.tasks() if task.id == task_id)
    observations, score = play(env, task, 3, actions)
    assert score > 0
    contexts = []

    def script(batch):
        contexts.append(batch)
        turns = [text.count("<tool_response>") for text in batch]
        return [
            "I give up." if len(contexts) == 1 and row else [*calls, "Done."][turns[row]] for row in range(len(batch))
        ]

    trainer = grpo(grpo_rows(env, [task], seed=3), script, environment_factory=as_environment_factory(env))
    assert moved(trainer)
    assert logged(trainer, f"rewards/{reward_name}/mean") == pytest.approx(score / 2)  # the other gave up
    assert logged(trainer, "tools/failure_frequency") == 0
    played = len(observations) - 1
    assert logged(trainer, "tools/call_frequency") == played / 2
    assert f"<|im_start|>user\n{observations[0]}<|im_end|>" in contexts[0][0]
    last = contexts[-1][0]
    assert [part.split("\n</tool_response>")[0] for part in last.split("<tool_response>\n")[1:]] == observations[1:]


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("twenty_questions", {"ask", "guess"}),
        ("car_dealer", {"say"}),
        ("webshop", {"search", "click"}),
        ("toy", {"act"}),
    ],
)
def test_trl_sees_these_tools_only(name, tools, grpo):
    env = GuessNumber() if name == "toy" else GAMES[name][0]()
    trainer = grpo(grpo_rows(env), environment_factory=as_environment_factory(env))
    assert {tool.__name__ for tool in trainer.tools} == tools
    assert all(inspect.signature(tool).parameters for tool in trainer.tools)


def test_trl_exposes_every_public_method_and_passes_every_column(grpo):
    seen = []

    class Bare:
        def reset(self, **row):
            seen.append(row)

        def get_reward(self):
            return 0.0

        def look(self) -> str:
            """
            Look.

            Returns:
                What is seen.
            """

        def _hidden(self):
            pass

    rows = grpo_rows(GuessNumber())
    trainer = grpo(rows, lambda batch: ["No."] * len(batch), environment_factory=Bare)
    assert [tool.__name__ for tool in trainer.tools] == ["look"]
    trainer.train()
    assert [set(row) for row in seen] == [set(rows.column_names)] * 2
    assert seen[0] == seen[1]  # both generations of a group get one row


def test_a_factory_for_the_asynchronous_trainer_can_be_pickled():
    factory = pickle.loads(pickle.dumps(as_environment_factory("twenty_questions")))
    assert factory().reset(task_id="metals/one", seed=1, prompt=[]) == "category: metals"


def test_rewards_of_tools():
    tools = as_environment_factory(GuessNumber)()
    assert tools.reset(**grpo_rows(GuessNumber())[7]) == "It is odd."
    assert tools.act("9") == "Lower."
    assert tools.get_reward() == 0.0  # not the −1 that the step has cost
    assert tools.act("7") == "Right." and tools.get_reward() == 3.0  # 5 − 2 guesses remain
    assert tools.act("1") == "The game is over." and tools.get_reward() == 3.0
    tools.reset(task={"id": "4", "category": "even", "data": {"secret": 4}})
    assert tools.get_reward() == 0.0

    named = as_environment_factory(GuessNumber, reward="luck", unfinished_reward=-5.0)()
    named.reset(task_id="7")
    assert named.get_reward() == -5.0
    named.act("7")
    assert named.get_reward() == 7.0

    missing = as_environment_factory(GuessNumber, reward="profit")()
    missing.reset(task_id="7")
    missing.act("7")
    with pytest.raises(ValueError, match=r"guess_number ended a game without info\['profit'\].*'luck'"):
        missing.get_reward()  # not inside a tool, where TRL would show the error to the model and go on


@pytest.mark.parametrize("world", ["small", "full"])
def test_every_item_can_be_guessed_by_its_name(world):
    env = make_env("twenty_questions", world=world)
    tools = as_environment_factory(env)()
    for item in env.world.items:
        for name in item.names:
            tools.reset(task_id=item.id)
            tools.guess(name)
            assert tools.get_reward() == env.max_steps - 1, name


def test_own_tools(grpo):
    class GuessTools(ToolEnvironment):
        def guess(self, number: int) -> str:
            """
            Guess the number.

            Args:
                number: From 0 to 9.

            Returns:
                Whether it is right, higher or lower.
            """
            return self._act(str(number))

    env = GuessNumber()
    factory = as_environment_factory(env, tools=GuessTools)
    script = lambda batch: [call("guess", "number", 7) if "Right." not in text else "Done." for text in batch]  # noqa: E731
    trainer = grpo(grpo_rows(env, env.tasks()[7:8]), script, environment_factory=factory)
    trainer.train()
    assert logged(trainer, "rewards/GuessTools/mean") == 4.0


def test_two_environments_in_one_run(grpo):
    guess, twenty = GuessNumber(), make_env("twenty_questions")
    envs = {"guess": (guess, guess.tasks()[7:8]), "twenty": (twenty, twenty.tasks()[:1])}
    rows = concatenate_datasets(
        [grpo_rows(env, tasks).add_column("environment", [name]) for name, (env, tasks) in envs.items()]
    )

    def script(batch):
        if any("<tool_response>" in text for text in batch):
            return ["Done."] * len(batch)
        return [call("act", "action", "7") if '"act"' in text else call("guess", "item", "one") for text in batch]

    factories = {name: as_environment_factory(env) for name, (env, _) in envs.items()}
    trainer = grpo(rows, script, rows_per_step=2, environment_factory=factories)
    trainer.train()
    assert logged(trainer, "rewards/ActTools/mean") == 4.0
    assert logged(trainer, "rewards/TwentyQuestionsTools/mean") == 11.0


def test_rows(tmp_path):
    rows = grpo_rows(GuessNumber(), GuessNumber().tasks(["odd"]), seed=10)
    assert rows["task_id"] == ["1", "3", "5", "7", "9"] and rows["seed"] == [10, 11, 12, 13, 14]
    assert rows[1]["prompt"][0]["content"] == "Guess a number from 0 to 9."
    assert json.loads(rows[1]["prompt"][-1]["game"])["task"]["data"] == {"secret": 3}
    rows.to_parquet(tmp_path / "rows.parquet")  # no struct without fields
    assert grpo_rows(GuessNumber(), system_prompt="Play.")[0]["prompt"][0]["content"] == "Play."
    assert [message["role"] for message in grpo_rows(GuessNumber(system_prompt=""))[0]["prompt"]] == ["user"]
    with pytest.raises(ValueError, match="at least one task"):
        grpo_rows(GuessNumber(), [])


@pytest.mark.parametrize("name", GAMES)
def test_one_step_in_text(name, grpo, tokenizer):
    make, task_id, _, _, actions = GAMES[name]
    env = make()
    task = next(task for task in env.tasks() if task.id == task_id)
    observations, score = play(env, task, 3, actions)
    outputs = []
    rollout_func = as_rollout_func(env)

    def script(batch):
        turns = [text.count("<|im_start|>user") - 1 for text in batch]
        return [
            "hello" if "hello" in text or (row and not turn) else actions[turn]
            for row, (text, turn) in enumerate(zip(batch, turns))
        ]

    def spy(prompts, trainer):
        outputs.append((prompts, rollout_func(prompts, trainer)))
        return outputs[-1][1]

    trainer = grpo(grpo_rows(env, [task], seed=3), script, [env_reward], rollout_func=spy)
    assert moved(trainer)
    prompts, output = outputs[0]
    assert len(prompts) == 2 and prompts[0] == prompts[1]  # repeated already: one game per entry
    assert output["env_reward"] == [score, 0.0]
    assert logged(trainer, "rewards/env_reward/mean") == pytest.approx(score / 2)

    rules = f"<|im_start|>system\n{env.system_prompt}<|im_end|>\n" if env.system_prompt else ""
    opening = f"{rules}<|im_start|>user\n{observations[0]}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(output["prompt_ids"][0]) == opening
    ids, mask = output["completion_ids"][0], output["env_mask"][0]
    between = [
        f"\n<|im_start|>user\n{observation}<|im_end|>\n<|im_start|>assistant\n" for observation in observations[1:-1]
    ]
    written = [action + "<|im_end|>" for action in actions[: len(between) + 1]]
    assert tokenizer.decode(ids) == "".join(a + b for a, b in zip(written, [*between, ""]))
    assert tokenizer.decode([token for token, own in zip(ids, mask) if own]) == "".join(written)


def test_rollouts_with_sampling_stay_within_their_limits(grpo, tokenizer):
    """The random model never ends a turn by itself: every one is cut, and the template's end of turn is not its own."""
    outputs = []
    rollout_func = as_rollout_func(GuessNumber(), max_turn_tokens=5)

    def spy(prompts, trainer):
        outputs.append(rollout_func(prompts, trainer))
        return outputs[-1]

    rows = grpo_rows(GuessNumber())
    trainer = grpo(rows, None, [env_reward], rows_per_step=2, max_completion_length=150, rollout_func=spy)
    trainer.train()
    end = "<|im_end|>\n<|im_start|>user\n"
    for ids, mask in zip(outputs[0]["completion_ids"], outputs[0]["env_mask"]):
        assert 0 < len(ids) <= 150 and len(mask) == len(ids)
        runs = "".join(map(str, mask)).split("0")
        assert max(map(len, runs)) <= 5 and mask[0] == mask[-1] == 1
        environment = tokenizer.decode([token for token, own in zip(ids, mask) if not own])
        assert environment.count("<|im_start|>user\n") == environment.count("<|im_start|>assistant\n") >= 1
        assert environment.startswith((end, end.removeprefix("<|im_end|>")))


def test_a_game_that_does_not_fit_is_not_paid(grpo):
    outputs = []
    rollout_func = as_rollout_func(GuessNumber(), unfinished_reward=-1.0)

    def spy(prompts, trainer):
        outputs.append(rollout_func(prompts, trainer))
        return outputs[-1]

    trainer = grpo(
        grpo_rows(GuessNumber(), GuessNumber().tasks()[7:8]),
        lambda batch: ["3"] * len(batch),
        [env_reward],
        max_completion_length=10,
        rollout_func=spy,
    )
    trainer.train()
    assert outputs[0]["env_reward"] == [-1.0, -1.0]
    assert [len(ids) for ids in outputs[0]["completion_ids"]] == [2, 2]  # the guess and its end, no observation


def test_rollout_func_says_what_it_cannot_do(grpo):
    rows = grpo_rows(GuessNumber())
    foreign = rows.map(lambda row: {"prompt": [{"role": "user", "content": "Hi."}]})
    trainer = grpo(foreign.select_columns(["prompt"]), None, [env_reward], rollout_func=as_rollout_func(GuessNumber))
    with pytest.raises(ValueError, match="make the dataset with `grpo_rows"):
        trainer.train()
    trainer = grpo(rows, None, [env_reward], rollout_func=as_rollout_func(GuessNumber))
    trainer.use_vllm = True
    with pytest.raises(ValueError, match="excludes use_vllm"):
        trainer.rollout_func([], trainer)

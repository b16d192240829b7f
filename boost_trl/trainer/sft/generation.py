"""Answers that the model itself gives to questions of the training data: sampled, by vLLM if asked, scored and examined."""

import contextlib
import enum
import math
import sys
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.fsdp import FullyShardedDataParallel
from tqdm.auto import tqdm
from transformers import DataCollator, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.row_weights.forward import EvaluationForward


class Status(enum.IntEnum):
    """Status of an answer: used for training, or the reason why the offline answer stands in for it."""

    USED = 0
    EMPTY = 1
    LOOPING = 2
    NON_FINITE = 3


def answer_start(labels: list[int]) -> int:
    """Start of the last run of labelled tokens, the last answer. What comes before is its question."""
    end = len(labels)
    while end > 0 and labels[end - 1] == -100:
        end -= 1
    while end > 0 and labels[end - 1] != -100:
        end -= 1
    return end


class AnswerGenerator:
    """Samples one answer to each question from the model as it is.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        args ([`BilevelSFTSelfRefineConfig`]): how long answers are, and how they are sampled.
        accelerator ([`~accelerate.Accelerator`]): deals the questions out.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): ends and padding.
        forward ([`~boost_trl.trainer.row_weights.forward.EvaluationForward`]): gives the wrapped model in evaluation mode.
        vllm ([`~boost_trl.trainer.sft.generation.VLLMAnswers`], *optional*): answers in the place of transformers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: BilevelSFTSelfRefineConfig,
        accelerator: Accelerator,
        tokenizer: PreTrainedTokenizerBase,
        forward: EvaluationForward,
        vllm: "VLLMAnswers | None" = None,
    ):
        self.args, self.accelerator, self.tokenizer, self.vllm = args, accelerator, tokenizer, vllm
        self._model, self._forward = model, forward

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        return end_tokens(self.accelerator.unwrap_model(self._model), self.tokenizer)

    def generate(self, questions: list[list[int]], seed: int) -> list[list[int]]:
        """One sampled answer to each question, up to and including its end token if it reached one.

        Questions are sorted by length and answered in batches, of which each process takes its share. The random numbers
        are drawn apart from the training's, by batch: the answers depend neither on the number of processes nor on what
        was drawn before, and training continues as if nothing had been drawn.

        Args:
            questions (`list[list[int]]`): token ids.
            seed (`int`): fixes the random numbers, though not vLLM's.

        Returns:
            `list[list[int]]`: in the order of `questions`, the same on every process, each at most
            `max_generation_length` tokens and, with its own question, within `max_length` and the model's context. A
            question that leaves no room has an empty answer.
        """
        args = self.args
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        limits = [args.max_length, context]
        if self.vllm is not None:
            limits.append(args.vllm_max_model_length)
        limit = min((limit for limit in limits if limit is not None), default=sys.maxsize)
        places = [place for place, question in enumerate(questions) if len(question) < limit]
        asked = [questions[place] for place in places]
        rooms = [min(args.max_generation_length, limit - len(question)) for question in asked]
        replies = []
        if asked:
            replies = self._sample(asked, rooms, context, seed) if self.vllm is None else self.vllm.generate(asked)
        answers: list[list[int]] = [[] for _ in questions]
        for place, tokens, room in zip(places, replies, rooms):
            answers[place] = tokens[:room]
        return answers

    def _sample(self, questions: list[list[int]], rooms: list[int], context: int | None, seed: int) -> list[list[int]]:
        """Answers to questions that all have room, of at least one token each; those longer than theirs are to be cut."""
        args, accelerator = self.args, self.accelerator
        lengths = [len(question) for question in questions]
        batches = _batches_within(context, _length_sorted_batches(lengths, args.generation_batch_size), lengths, rooms)
        answers = []
        with self._ready_to_generate() as model, own_random_numbers(accelerator.device):
            disable = args.disable_tqdm or not accelerator.is_local_main_process
            # Every process generates as often as the others, on the last batch again where none is left for it: sharded
            # models wait for one another at each token.
            for first in tqdm(
                range(0, len(batches), accelerator.num_processes), desc="Generating answers", disable=disable
            ):
                number = min(first + accelerator.process_index, len(batches) - 1)
                torch.manual_seed((seed * 1_000_003 + number) % 2**63)
                batch = batches[number]
                longest_answer = max(rooms[place] for place in batch)
                replies = self._generate_batch(model, [questions[place] for place in batch], longest_answer)
                if number == first + accelerator.process_index:
                    answers += list(zip(batch, replies))
        return [tokens for _, tokens in sorted(gather_object(answers))]

    def _generate_batch(
        self, model: PreTrainedModel, questions: list[list[int]], longest_answer: int
    ) -> list[list[int]]:
        pad, ends = self.tokenizer.pad_token_id, self.ends
        width = max(len(question) for question in questions)
        inputs = torch.tensor([[pad] * (width - len(question)) + question for question in questions])
        attention_mask = torch.tensor([[0] * (width - len(question)) + [1] * len(question) for question in questions])
        # Nothing but the temperature may bend the distribution, whatever the model's own config asks for.
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        own_config = base.generation_config
        base.generation_config = GenerationConfig(
            do_sample=True,
            temperature=self.args.generation_temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest_answer,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
            use_cache=True,
        )
        try:
            device = self.accelerator.device
            outputs = model.generate(input_ids=inputs.to(device), attention_mask=attention_mask.to(device))
        finally:
            base.generation_config = own_config
        return [cut_at_end(tokens, ends) for tokens in outputs[:, width:].tolist()]

    @contextlib.contextmanager
    def _ready_to_generate(self) -> Iterator[PreTrainedModel]:
        """The bare model, gathered once, in evaluation mode and without gradient checkpointing; all of it restored."""
        with self._forward.model() as wrapped:
            gathered = contextlib.nullcontext()
            if isinstance(wrapped, FullyShardedDataParallel):
                gathered = FullyShardedDataParallel.summon_full_params(wrapped, recurse=False)
            checkpointing = disable_gradient_checkpointing(
                self.accelerator.unwrap_model(wrapped), self.args.gradient_checkpointing_kwargs
            )
            with checkpointing, unwrap_model_for_generation(wrapped, self.accelerator) as model, gathered:
                yield model


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end an answer: the tokenizer's and those of the model's generation config."""
    ends = model.generation_config.eos_token_id
    ends = set() if ends is None else set(ends) if isinstance(ends, list) else {ends}
    return ends | {tokenizer.eos_token_id}


def cut_at_end(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to and including the first of `ends`."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:end]


def score_answers(
    questions: list[list[int]],
    answers: list[list[int]],
    forward: EvaluationForward,
    collator: DataCollator,
    batch_size: int,
    accelerator: Accelerator,
) -> list[np.ndarray]:
    """log π(y_t | x, y_<t) of each answer's tokens under the present model at temperature 1, without dropout: by the
    fused forward of training, not by the sampler.

    Every process runs as many forwards as the others.

    Args:
        questions (`list[list[int]]`): token ids.
        answers (`list[list[int]]`): token ids, none empty.
        forward ([`~boost_trl.trainer.row_weights.forward.EvaluationForward`]): of the present model.
        collator (`Callable`): the training's.
        batch_size (`int`): rows per process.
        accelerator ([`~accelerate.Accelerator`]): deals the answers out.

    Returns:
        `list[np.ndarray]`: float32, one array per answer, the same on every process.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    lengths = [len(question) + len(answer) for question, answer in zip(questions, answers)]
    batches = _length_sorted_batches(lengths, batch_size)
    scored = []
    for first in range(0, len(batches), world):
        number = first + rank
        batch = batches[min(number, len(batches) - 1)]
        fused = forward(**collator([answered_row(questions[place], answers[place]) for place in batch]))
        if number < len(batches):
            pieces = fused.log_probs[fused.label_mask].float().cpu().split([len(answers[place]) for place in batch])
            scored += [(place, piece.numpy()) for place, piece in zip(batch, pieces)]
    return [log_probs for _, log_probs in sorted(gather_object(scored), key=lambda pair: pair[0])]


def answered_row(question: list[int], answer: list[int]) -> dict[str, list[int]]:
    """A prepared training row that learns the answer."""
    return {"input_ids": question + answer, "labels": [-100] * len(question) + answer}


def examine(answer: list[int], ends: set[int], text: str) -> Status:
    """Status of an answer by its tokens, its log-probabilities apart.

    Args:
        answer (`list[int]`): its tokens.
        ends (`set[int]`): the tokens that end an answer.
        text (`str`): the answer without special tokens.
    """
    if not text.strip():
        return Status.EMPTY
    if answer[-1] not in ends and is_looping(answer):
        return Status.LOOPING
    return Status.USED


def is_looping(tokens: list[int]) -> bool:
    """Whether the second half is one unit of tokens, repeated at least four times."""
    half = tokens[len(tokens) // 2 :]
    return any(half[period:] == half[:-period] for period in range(1, len(half) // 4 + 1))


def _length_sorted_batches(lengths: list[int], size: int) -> list[list[int]]:
    """Places in batches of similar lengths, the longest first: what does not fit into memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[first : first + size] for first in range(0, len(order), size)]


def _batches_within(
    context: int | None, batches: list[list[int]], lengths: list[int], rooms: list[int]
) -> list[list[int]]:
    """The batches, longest question first, split so that no row goes past the model's context while another one with
    more room is still being answered: learned positions end there.
    """
    if context is None:
        return batches
    split = []
    for batch in batches:
        split.append([])
        for place in batch:
            if split[-1] and lengths[split[-1][0]] + rooms[place] > context:
                split.append([])
            split[-1].append(place)
    return split


@contextlib.contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Context whose random numbers do not change those drawn after it."""
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        yield


class VLLMAnswers:
    """A vLLM engine, in this process or behind a server, that is given the model's weights before it answers.

    Args:
        model ([`~transformers.PreTrainedModel`]): whose weights it is given.
        args ([`BilevelSFTSelfRefineConfig`]): how it is run, and how answers are sampled.
        accelerator ([`~accelerate.Accelerator`]): deals the questions out.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): ends.
        processing_class (*optional*): the tokenizer or processor that TRL's layer is given.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: BilevelSFTSelfRefineConfig,
        accelerator: Accelerator,
        tokenizer: PreTrainedTokenizerBase,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    ):
        from trl.generation.vllm_generation import VLLMGeneration

        self.args, self.accelerator = args, accelerator
        self.ends = end_tokens(accelerator.unwrap_model(model), tokenizer)
        with own_random_numbers(self.accelerator.device):
            self.engine = VLLMGeneration(
                model=model,
                accelerator=self.accelerator,
                processing_class=processing_class,
                mode=args.vllm_mode,
                server_base_url=args.vllm_server_base_url,
                group_port=args.vllm_group_port,
                tensor_parallel_size=args.vllm_tensor_parallel_size,
                gpu_memory_utilization=args.vllm_gpu_memory_utilization,
                max_model_length=args.vllm_max_model_length,
                max_num_seqs=args.generation_batch_size * args.vllm_tensor_parallel_size,
                enable_sleep_mode=args.vllm_enable_sleep_mode,
                trust_remote_code=args.trust_remote_code,
                temperature=args.generation_temperature,
                max_completion_length=args.max_generation_length,
                logprobs=None,
                generation_kwargs={"stop_token_ids": sorted(self.ends)},
            )

    def generate(self, questions: list[list[int]]) -> list[list[int]]:
        """One answer to each question under the present weights, up to and including its end token if it reached one.

        Args:
            questions (`list[list[int]]`): token ids; each question comes `num_generations` times in a row.

        Returns:
            `list[list[int]]`: in the order of `questions`, the same on every process.
        """
        repeats, accelerator = self.args.num_generations, self.accelerator
        # TRL cuts a server's replies into equal shares: the last question fills what is missing.
        different = questions[::repeats]
        size = math.ceil(len(different) / accelerator.num_processes)
        different += different[-1:] * (size * accelerator.num_processes - len(different))
        first = size * accelerator.process_index
        mine = [question for question in different[first : first + size] for _ in range(repeats)]
        with torch.no_grad(), own_random_numbers(accelerator.device):
            self.engine.sync_weights()
            _, replies, _, _ = self.engine.generate(prompts=mine, images=None, num_generations=repeats)
        answers = gather_object([cut_at_end(list(tokens), self.ends) for tokens in replies])
        return answers[: len(questions)]

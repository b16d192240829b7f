"""Answers by vLLM, through TRL's own generation layer."""

import math
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object

from boost_trl.trainer.sft_generation import cut_at_end, end_tokens, own_random_numbers


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


class VLLMAnswers:
    """
    A vLLM engine, in this process or behind a server, that is given the model's weights before it answers.

    Args:
        trainer ([`BilevelSFTSelfRefineTrainer`]): its model, arguments and tokenizer are used.
    """

    def __init__(self, trainer: "BilevelSFTSelfRefineTrainer"):
        from trl.generation.vllm_generation import VLLMGeneration

        self.args, self.accelerator = trainer.args, trainer.accelerator
        self.ends = end_tokens(trainer)
        args = self.args
        with own_random_numbers(self.accelerator.device):
            self.engine = VLLMGeneration(
                model=trainer.model,
                accelerator=self.accelerator,
                processing_class=trainer.processing_class,
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
        """
        One answer to each question under the present weights, up to and including its end token if it reached one.

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

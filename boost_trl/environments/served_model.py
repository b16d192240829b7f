"""A causal language model that generates behind a server, such as vLLM's, in the place of one in this process."""

import json
import urllib.error
import urllib.request
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, StoppingCriteriaList
from transformers.generation import GenerateDecoderOnlyOutput


class ServedModel:
    """A model that `vllm serve` or another server with OpenAI's completions for token ids holds. It goes wherever a model plays:
    `rollout((ServedModel(...), tokenizer), env)`, `GenerationPolicy`, synthetic self-play.

    Only an ordinary causal LM can be served: the agent of `algorithm="mc"` as it is saved, or a
    [`~boost_trl.ValuePolicy`] after `to_causal_lm`. Answers are sampled with vLLM's random numbers, seeded by torch's.

    Args:
        name_or_path (`str`): folder or Hub id that the server has loaded, by whose name it serves the model.
        base_url (`str`, *optional*, defaults to `"http://localhost:8000"`): of the server.
        timeout (`float`, *optional*, defaults to `600.0`): seconds to wait for the answers to one batch.

    Example:

    ```python
    >>> # vllm serve outputs/agent
    >>> tokenizer = AutoTokenizer.from_pretrained("outputs/agent")
    >>> games = rollout((ServedModel("outputs/agent"), tokenizer), env, env.tasks())
    ```
    """

    training = False
    device = torch.device("cpu")

    def __init__(self, name_or_path: str, base_url: str = "http://localhost:8000", timeout: float = 600.0):
        self.name_or_path, self.base_url, self.timeout = name_or_path, base_url.rstrip("/"), timeout
        self.config = AutoConfig.from_pretrained(name_or_path).get_text_config()
        self.generation_config = GenerationConfig.from_model_config(self.config)

    def train(self, mode: bool = True) -> "ServedModel":
        """Nothing changes: it never trains."""
        return self

    def eval(self) -> "ServedModel":
        """Nothing changes: it never trains."""
        return self

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        generation_config: GenerationConfig,
        stopping_criteria: StoppingCriteriaList | None = None,
    ) -> torch.Tensor | GenerateDecoderOnlyOutput:
        """As of transformers.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`), attention_mask (`torch.LongTensor` of shape `(B, S)`): prompts,
                padded on the left.
            generation_config (`GenerationConfig`): its lengths, ends, temperature, `top_k` and `top_p` are used.
            stopping_criteria (`StoppingCriteriaList`, *optional*): not asked; what they would have left out comes along.

        Returns:
            `torch.LongTensor` of shape `(B, S + T)`: prompts and answers, padded by `generation_config.pad_token_id`; as the `sequences`
            of an output without keys and values where `generation_config.return_dict_in_generate` asks for one.

        Raises:
            ConnectionError: if the server is not there, or refuses.
        """
        prompts = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask)]
        answers = self._ask({"prompt": prompts, **_sampling(generation_config)})
        longest = max(map(len, answers))
        pad = generation_config.pad_token_id
        padded = torch.tensor([answer + [pad] * (longest - len(answer)) for answer in answers], dtype=torch.long)
        sequences = torch.cat([input_ids.cpu(), padded.reshape(len(prompts), longest)], dim=1)
        return GenerateDecoderOnlyOutput(sequences) if generation_config.return_dict_in_generate else sequences

    def _ask(self, values: dict[str, Any]) -> list[list[int]]:
        """Token ids of the answer to each prompt."""
        # The answer's format is vLLM's, as TRL's client reads it.
        body = json.dumps({"model": self.name_or_path, "return_token_ids": True, **values}).encode()
        url = f"{self.base_url}/v1/completions"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                choices = json.load(response)["choices"]
        except urllib.error.HTTPError as error:
            raise ConnectionError(
                f"{url} refuses: {error.code} {error.read().decode(errors='replace')[:500]}"
            ) from error
        except OSError as error:
            raise ConnectionError(
                f"{url} does not answer ({error}): start it with `vllm serve {self.name_or_path}`"
            ) from error
        return [choice["token_ids"] for choice in sorted(choices, key=lambda choice: choice["index"])]


def _sampling(config: GenerationConfig) -> dict[str, Any]:
    """The fields of a request."""
    ends = config.eos_token_id
    return {
        "max_tokens": config.max_new_tokens,
        "temperature": (1.0 if config.temperature is None else config.temperature) if config.do_sample else 0.0,
        "top_k": config.top_k or 0,
        "top_p": 1.0 if config.top_p is None else config.top_p,
        "stop_token_ids": [] if ends is None else [ends] if isinstance(ends, int) else list(ends),
        "skip_special_tokens": False,
        "seed": int(torch.randint(2**31 - 1, ()).item()),
    }

"""Hidden states of the unmodified LM, computed once, kept on disk, reused by later runs.

Two things are cached per dataset, model (see [`model_fingerprint`]) and chat template (the template shows in the token
ids): embeddings of what is weighed (the last token's state, [B] G.5) and, for a frozen backbone, the state of every action
token.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from boost_trl.cache_folder import cache_folder
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.files import whole_file, write_whole
from boost_trl.models.hidden_states import adapters_disabled, final_hidden_states
from boost_trl.models.model_fingerprint import model_fingerprint


logger = logging.getLogger(__name__)


def _length_sorted_batches(store: TrajectoryStore, tokens_per_batch: int) -> list[np.ndarray]:
    order = np.argsort(-store.input_lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens_per_batch // int(store.input_lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


@torch.no_grad()
def _for_each_batch(model: nn.Module, store: TrajectoryStore, description: str, visit: Callable) -> None:
    """Call `visit(indices, batch, hidden (B, S, d))` on length-sorted batches, adapters and dropout off."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    # Batches of about this many tokens keep activations small and the padding of sorted rows negligible.
    batches = _length_sorted_batches(store, tokens_per_batch=16384)
    with adapters_disabled(model):
        for indices in tqdm(batches, desc=description, disable=len(batches) < 8, leave=False):
            batch = store.collate(indices, tokens=True)
            hidden = final_hidden_states(model, batch.input_ids.to(device), batch.attention_mask.to(device))
            visit(indices, batch, hidden)
    model.train(was_training)


def unit_embeddings(model: nn.Module, store: TrajectoryStore, cache_dir: Path | None = None) -> torch.Tensor:
    """Final-layer hidden state of the last token of each of `store.units`, of every trajectory ([B] G.5) or every
    turn, float32, (U, d)."""
    name = f"{store.weight_level}_embeddings-{_key(model, store)}.safetensors"
    path = (cache_dir or cache_folder("hidden_states")) / name
    if path.is_file():
        return load_file(path)["embeddings"]
    embeddings, units = None, store.units

    def visit(indices, batch, hidden):
        nonlocal embeddings
        chosen = units.of_rows(indices)
        row = np.repeat(np.arange(len(indices)), units.counts[indices])
        last = hidden[torch.from_numpy(row), torch.from_numpy(units.ends[chosen])].float().cpu()
        if embeddings is None:
            embeddings = torch.empty(len(units), last.shape[1])
        embeddings[torch.from_numpy(chosen)] = last

    _for_each_batch(model, store, "Embedding trajectories", visit)
    with whole_file(path) as draft:
        save_file({"embeddings": embeddings}, draft)
    return embeddings


def action_states(
    model: nn.Module, store: TrajectoryStore, dtype: torch.dtype = torch.bfloat16, cache_dir: Path | None = None
) -> torch.Tensor:
    """The hidden state of every action token (and bootstrap state), memory-mapped, (store.num_states, d).

    The size on disk is logged before anything is written.
    """
    name = str(dtype).removeprefix("torch.")
    path = (cache_dir or cache_folder("hidden_states")) / f"states-{name}-{_key(model, store)}.bin"
    shape_path = path.with_suffix(".json")
    if not shape_path.is_file():
        hidden_size = model.config.get_text_config().hidden_size
        size = store.num_states * hidden_size * dtype.itemsize
        logger.warning(
            f"writing {size / 2**20:,.1f} MiB of hidden states ({store.num_states:,} tokens) to {path.parent}"
        )
        with whole_file(path) as draft:
            length = store.num_states * hidden_size
            states = torch.from_file(str(draft), shared=True, size=length, dtype=dtype).view(-1, hidden_size)

            def visit(indices, batch, hidden):
                chosen = hidden.reshape(-1, hidden.shape[-1])[batch.state_index.to(hidden.device)].to(dtype).cpu()
                start = 0
                for index in indices:
                    count = int(store.state_counts[index])
                    states[store.state_slice(index)] = chosen[start : start + count]
                    start += count

            _for_each_batch(model, store, "Computing hidden states", visit)
            del states
        write_whole(shape_path, json.dumps([store.num_states, hidden_size]))
    shape = json.loads(shape_path.read_text())
    return torch.from_file(str(path), shared=False, size=shape[0] * shape[1], dtype=dtype).view(shape)


def _key(model: nn.Module, store: TrajectoryStore) -> str:
    return hashlib.sha256((model_fingerprint(model) + store.fingerprint()).encode()).hexdigest()[:32]

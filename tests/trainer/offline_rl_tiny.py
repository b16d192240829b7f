"""What tests of [`BilevelOfflineRLTrainer`] share."""

import copy

import torch

from boost_trl import BilevelOfflineRLTrainer
from boost_trl.trainer.common.engines import innermost_optimizer


OPTIONS = {
    "auxiliary_steps": 2,
    "primary_steps": 2,
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
    "average_last": 0.0,
    "max_grad_norm": 0.0,
    "states_dtype": "float32",
}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class Recording(BilevelOfflineRLTrainer):
    """Keeps a copy of everything that training could move, before the first and after every policy update."""

    def snapshot(self):
        optimizer = innermost_optimizer(self.optimizer)
        moments = {
            f"{group['role']}.{i}.{j}.{name}": value
            for i, group in enumerate(optimizer.param_groups)
            for j, parameter in enumerate(group["params"])
            for name, value in optimizer.state.get(parameter, {}).items()
        }
        phi = {} if self.reweighting_head is None else self.reweighting_head.state_dict()
        return copy.deepcopy({"model": self.model.state_dict(), "moments": moments, "phi": phi})

    def get_batch_samples(self, *args):
        self.history = getattr(self, "history", [])
        self.history.append({"before": self.snapshot()})
        return super().get_batch_samples(*args)

    def _after_policy_update(self):
        self.history[-1]["updated"] = self.snapshot()
        super()._after_policy_update()
        self.history[-1]["after"] = self.snapshot()


def moved(before, after, part, prefix=""):
    """Names under `prefix` that are not bit for bit the same."""
    names = [name for name in after[part] if name.startswith(prefix)]
    assert names or part == "moments", f"nothing is called {prefix} in {part}"
    return {
        name for name in names if name not in before[part] or not torch.equal(before[part][name], after[part][name])
    }


def naive_trajectory_losses(trainer, role, rows, dataset):
    """ℓ(τ) one row at a time, from full logits and plain formulas (Monte-Carlo returns)."""
    by_row = naive_token_losses(trainer, role, rows, dataset)
    return torch.stack([torch.cat(turns).mean() for turns in by_row])


def naive_token_losses(trainer, role, rows, dataset):
    """The losses of every row's action tokens, turn by turn."""
    tokenizer, config = trainer.processing_class, trainer.model.primary.config
    heads = getattr(trainer.model, role)
    by_row = []
    for row in rows:
        example = dataset[int(row)]
        rendered = tokenizer.apply_chat_template(
            example["messages"], return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        ids, mask = rendered["input_ids"], torch.as_tensor(rendered["assistant_masks"]).reshape(-1)
        hidden = trainer.model.backbone(ids, output_hidden_states=True).hidden_states[-1][0]
        q = hidden @ heads.q_weight[0].T + heads.q_bias[0]
        turns = []
        for t in range(1, ids.shape[1]):
            if mask[t] == 0:
                continue
            if mask[t - 1] == 0:
                turns.append([])
            target = (sum(example["rewards"][len(turns) - 1 :]) - config.return_shift) / config.return_scale
            taken = q[t - 1, ids[0, t]]
            turns[-1].append((taken - target) ** 2 + trainer.args.cql_weight * (q[t - 1].logsumexp(0) - taken))
        by_row.append([torch.stack(losses) for losses in turns])
    return by_row

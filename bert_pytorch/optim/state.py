"""Restoring an optimizer's moments without the hyper-parameters that were saved with them.

torch's `load_state_dict` also restores `lr`, `weight_decay` and the rest, so that a value changed for the second start
would silently not count; and it matches parameters by position without looking at their shapes.
"""

from typing import Any

import torch

from bert_pytorch.errors import InputError


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str) -> None:
    """Load moments and step counts from a checkpoint; hyper-parameters stay those of this run.

    Args:
        optimizer: over the same parameters, in the same groups, as the one saved.
        state: what its `state_dict()` was; may be modified.
        where: names the checkpoint in error messages.

    Raises:
        InputError: if the state is another optimizer's or another model's.
    """
    own = optimizer.state_dict()["param_groups"]
    saved = state["param_groups"]
    if [set(group) for group in own] != [set(group) for group in saved]:
        raise InputError(
            f"{where}: it holds the state of another optimizer or of other parameter groups than this run's "
            f"{type(optimizer).__name__}. Continue with the --optimizer it was trained with, or give it as "
            "--init_checkpoint to a new output folder to start from its weights alone."
        )
    _check_parameters(optimizer, state, where)
    kept = [{key: value for key, value in group.items() if key not in ("params", "step")} for group in own]
    state = {**state, "param_groups": [{**old, **new} for old, new in zip(saved, kept, strict=True)]}
    optimizer.load_state_dict(state)


def _check_parameters(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str) -> None:
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        own_names = own.get("param_names", list(range(len(own["params"]))))
        if own_names != saved.get("param_names", saved["params"]) or len(own["params"]) != len(saved["params"]):
            raise InputError(f"{where}: its optimizer state belongs to other parameters than this model's. {_ADVICE}")
        for parameter, index, name in zip(own["params"], saved["params"], own_names, strict=True):
            moment = state["state"].get(index, {}).get("exp_avg")
            if moment is not None and moment.shape != parameter.shape:
                found, wanted = tuple(moment.shape), tuple(parameter.shape)
                raise InputError(f"{where}: moments of {name} have shape {found}, wanted {wanted}. {_ADVICE}")


_ADVICE = "Use the model configuration it was trained with, or a new output folder."

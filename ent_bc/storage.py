"""One file for a model: safetensors, with everything that is no tensor as JSON in its header."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch as th
from gymnasium import spaces
from safetensors.torch import save_file
from torch import nn

from ent_bc.batches import BatchConfig
from ent_bc.extractors import TaskFeaturesExtractor
from ent_bc.losses import LossConfig
from ent_bc.policies import MIN_SIGMA, TaskConditionedPolicy
from ent_bc.schedule import ScheduleConfig

if TYPE_CHECKING:
    from ent_bc.ent_bc import EntBC

FORMAT_VERSION = 1
_HEADER = "ent_bc"
_CLASSES = ("activation_fn", "features_extractor_class")


def save(model: EntBC, path: Path) -> None:
    """Writes a model; the file appears whole or not at all."""
    tensors = {f"policy/{k}": v for k, v in model.policy.state_dict().items()}
    state = model.optimizer.state_dict()
    for index, values in state["state"].items():
        for name, value in values.items():
            tensors[f"optimizer/{index}/{name}"] = th.as_tensor(value)
    header = {
        "format_version": FORMAT_VERSION,
        "observation_space": space_to_dict(model.observation_space),
        "action_space": space_to_dict(model.action_space),
        "policy_class": _name(type(model.policy)),
        "policy_kwargs": _to_json(model.policy.options),
        "losses": dataclasses.asdict(model.losses),
        "batches": dataclasses.asdict(model.batches),
        "schedule": dataclasses.asdict(model.schedule),
        "batch_size": model.batch_size,
        "minibatch_size": model.minibatch_size,
        "ent_weight": model.ent_weight,
        "l2_weight": model.l2_weight,
        "optimizer": model.optimizer.__class__.__name__,
        "optimizer_kwargs": model.optimizer_kwargs,
        "seed": model.seed,
        "batch_seed": model.batch_seed,
        "num_timesteps": model.num_timesteps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(contiguous, temporary, metadata={_HEADER: json.dumps(header)})
    os.replace(temporary, path)


def load(cls: type[EntBC], path: Path, **kwargs: Any) -> EntBC:
    """Reads a model; ``kwargs`` override what the file says of the constructor's arguments.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, no model, or of another format version; or other policy_kwargs
            are asked for than it was trained with.
    """
    header, tensors = _read(path)
    optimizer_cls = getattr(th.optim, header["optimizer"])
    demonstrations = kwargs.pop("demonstrations", None)
    policy_kwargs = _from_json(header["policy_kwargs"], kwargs.pop("policy_kwargs", None) or {})
    if "policy" not in kwargs and "policy_class" in header:
        kwargs["policy"] = _find_class(header["policy_class"], "policy=...")
    arguments = {
        "observation_space": space_from_dict(header["observation_space"]),
        "action_space": space_from_dict(header["action_space"]),
        "policy_kwargs": policy_kwargs,
        "losses": LossConfig(**header["losses"]),
        "batches": BatchConfig(**header["batches"]),
        "schedule": ScheduleConfig(**header["schedule"]),
        "batch_size": header["batch_size"],
        "minibatch_size": header["minibatch_size"],
        "ent_weight": header["ent_weight"],
        "l2_weight": header["l2_weight"],
        "optimizer_cls": optimizer_cls,
        "optimizer_kwargs": header["optimizer_kwargs"],
        "seed": header["seed"],
        **kwargs,
    }
    model = cls(**arguments)
    _check_options(header["policy_kwargs"], model.policy.options)
    model.batch_seed = header["batch_seed"]
    model.num_timesteps = header["num_timesteps"]
    model.policy.load_state_dict(
        {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
    )
    _load_optimizer(model.optimizer, tensors)
    if demonstrations is not None:
        model.set_demonstrations(demonstrations)
    return model


def space_to_dict(space: spaces.Space[Any]) -> dict[str, Any]:
    """A Box or a Dict of Boxes as JSON; bounds that are all equal become one number."""
    if isinstance(space, spaces.Dict):
        return {"dict": {key: space_to_dict(part) for key, part in space.spaces.items()}}
    if not isinstance(space, spaces.Box):
        raise ValueError(f"Cannot save the space {space}: expected Box, or Dict of Boxes.")
    return {
        "low": _bound_to_json(space.low),
        "high": _bound_to_json(space.high),
        "shape": list(space.shape),
        "dtype": str(space.dtype),
    }


def space_from_dict(record: dict[str, Any]) -> spaces.Space[Any]:
    """Inverse of `space_to_dict`."""
    if "dict" in record:
        return spaces.Dict({key: space_from_dict(part) for key, part in record["dict"].items()})
    dtype = np.dtype(record["dtype"])
    low, high = (
        np.broadcast_to(np.asarray(record[bound], dtype=np.float64), record["shape"]).astype(dtype)
        for bound in ("low", "high")
    )
    return spaces.Box(low, high, tuple(record["shape"]), dtype.type)


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested record's entries, by names with dots, for tables."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _to_json(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The policy's options; classes go by their names, and ours need none."""
    record = dict(policy_kwargs)
    if record["dict_space"] is not None:
        record["dict_space"] = space_to_dict(record["dict_space"])
    for key in _CLASSES:
        record[key] = _name(record[key])
    return record


def _from_json(record: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_to_json`; a class that is not ours or torch's must be ``given`` again."""
    policy_kwargs = {**record, **given}
    if "dict_space" not in given and record.get("dict_space") is not None:
        policy_kwargs["dict_space"] = space_from_dict(record["dict_space"])
    for key in _CLASSES:
        if key in record and key not in given:
            policy_kwargs[key] = _find_class(record[key], f"policy_kwargs={{{key!r}: ...}}")
    return policy_kwargs


def _check_options(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """As in SB3: what was trained with other options would load, and act otherwise."""
    asked = json.loads(json.dumps(_to_json(given)))
    saved = {"min_sigma": MIN_SIGMA, **saved}  # as files that do not tell it had it
    if isinstance(saved["net_arch"], list):  # actor and critic alike, as files once had it
        saved = {**saved, "net_arch": {"pi": saved["net_arch"], "vf": saved["net_arch"]}}
    changed = [key for key in saved if key not in _CLASSES and asked[key] != saved[key]]
    if changed:
        was, now = ({key: options[key] for key in changed} for options in (saved, asked))
        raise ValueError(
            f"The model was saved with policy_kwargs {was}, not {now}: leave them out."
        )


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _find_class(name: str, argument: str) -> type:
    """A class by its name, of ours and torch's alone: a model file does not decide what runs."""
    for known in (TaskConditionedPolicy, TaskFeaturesExtractor):
        if name == _name(known):
            return known
    short = name.rpartition(".")[2]
    if name.startswith("torch.nn.") and hasattr(nn, short):
        return getattr(nn, short)
    raise ValueError(f"The model was saved with {name}: pass it again, load(path, {argument}).")


def _bound_to_json(bound: np.ndarray) -> Any:
    first = bound.flat[0]
    return float(first) if (bound == first).all() else bound.tolist()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or no model file ({error}): save or copy it again."
        ) from error
    if header is None:
        raise ValueError(f"{path} is a safetensors file, but no EntBC model.")
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')}, expected "
            f"{FORMAT_VERSION}: load it with the release that wrote it, or train anew."
        )
    return header, tensors


def _load_optimizer(optimizer: th.optim.Optimizer, tensors: dict[str, th.Tensor]) -> None:
    state: dict[int, dict[str, th.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

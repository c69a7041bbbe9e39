"""Any causal language model of transformers behind the interface of `CausalLM`.

Packing, padding and the key-value cache are transformers' own: position ids that restart at each document, a mask of the
padding, `DynamicCache`. Whether a given architecture honours them is tried on a few tokens when it is loaded, against its
own plain forward pass, and one that does not is refused.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from limit_lab.errors import ModelError
from limit_lab.model import hugging_face_attention as packed_attention
from limit_lab.model.attention import aligned, below
from limit_lab.model.causal import CausalLM
from limit_lab.shapes import weights

#: Configuration fields that treat logits after the projection; None and 1 do nothing.
TREATMENTS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
#: Largest difference from transformers' own logits that counts as float32 rounding, relative to the largest logit.
ROUNDING = 1e-3


class DynamicKeyValues:
    """transformers' `DynamicCache` with the rows that are kept."""

    def __init__(self, config: Any) -> None:
        from transformers import DynamicCache

        self.config = config
        self.held = DynamicCache(config=config)

    @property
    def tokens(self) -> int:
        return int(self.held.get_seq_length())

    def select(self, rows: Tensor, last: int | None = None) -> None:
        self.held.batch_select_indices(rows.cpu())  # indices that keys on any device take
        first = 0 if last is None else self.tokens - last
        layers: list[Any] = self.held.layers if first else []
        for layer in layers:
            layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]

    def spread(self, rows: Tensor, lengths: Tensor) -> DynamicKeyValues:
        """Another one: the first ``lengths`` tokens of each of the batch ``rows``, aligned at the right; both int64 [n]."""
        made = DynamicKeyValues(self.config)
        layers: list[Any] = self.held.layers
        for number, layer in enumerate(layers):
            made.held.update(aligned(layer.keys, rows, lengths), aligned(layer.values, rows, lengths), number)
        return made

    def joined(self, other: DynamicKeyValues) -> DynamicKeyValues:
        """Another one, with the rows of both: those of the one with fewer columns get more at their left."""
        made = DynamicKeyValues(self.config)
        mine, yours = self.held.layers, other.held.layers
        for number, (upper, lower) in enumerate(zip(mine, yours, strict=True)):
            pair: tuple[Any, Any] = (upper, lower)
            made.held.update(below(pair[0].keys, pair[1].keys), below(pair[0].values, pair[1].values), number)
        return made


class HuggingFaceLM(CausalLM):
    """Adapts ``network``, a transformers model for causal language modelling.

    The network stays in evaluation mode while it is trained: no dropout, so a run is a function of its seeds alone.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.eval()
        self.recompute = False
        self.by_document = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.network.eval()
        for block in _recomputable(self.network) if self.recompute else ():
            block.train(mode)  # recomputed only if it trains; what is inside it does not, so nothing is dropped
            for part in block.children():
                part.eval()
        return self

    def run(self, *, attention: str, recompute: bool) -> None:
        if attention not in ("auto", "mask"):
            raise ModelError(
                f"hardware.attention={attention} is for MPTs: other models keep packed documents apart through transformers' "
                "own attention, use hardware.attention=auto (or mask)."
            )
        self.by_document = attention == "auto" and self.network.config._attn_implementation == packed_attention.NAME
        if recompute:
            dropped = {key: value for key, value in self.network.config.to_dict().items() if "drop" in key and value}
            if dropped:
                raise ModelError(
                    f"hardware.recompute=true would switch on {', '.join(f'{key}={value}' for key, value in dropped.items())}: "
                    "set them to 0 in the model's config.json."
                )
            self.network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self.recompute = recompute

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def vocab_size(self) -> int:
        return int(self.network.config.get_text_config().vocab_size)  # its matrix may lie in pieces

    def hidden(
        self,
        ids: Tensor,
        *,
        document: Tensor | None = None,
        left_pad: Tensor | None = None,
        cache: DynamicKeyValues | None = None,
    ) -> Tensor:
        if document is not None and (left_pad is not None or cache is not None):
            raise ModelError("packed documents take neither left padding nor a cache: read them in one piece.")
        if document is not None and self.by_document:
            lengths = torch.unique_consecutive(document[document >= 0], return_counts=True)[1].tolist()
            if lengths and max(lengths) <= packed_attention.reach(self.network.config.to_dict()):
                return self._packed(ids, document >= 0, lengths)
        seen = 0 if cache is None else cache.tokens
        column = torch.arange(seen + ids.shape[1], device=ids.device).expand(len(ids), -1)
        position, mask = column[:, seen:], None
        if document is not None:
            position = position - _starts(document)
        if left_pad is not None:
            mask = (column >= left_pad[:, None]).long()
            position = (position - left_pad[:, None]).clamp(min=0)
        found = self.network.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=None if cache is None else cache.held,
            use_cache=cache is not None,
        )
        out: Tensor = found.last_hidden_state
        return out

    def _packed(self, ids: Tensor, real: Tensor, lengths: list[int]) -> Tensor:
        """The documents of all rows one after another, without padding; its hidden states are 0."""
        position = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
        with packed_attention.without_mask():
            found = self.network.base_model(
                input_ids=ids[real][None], position_ids=position[None], use_cache=False, document_lengths=lengths
            )
        states: Tensor = found.last_hidden_state[0]
        return states.new_zeros(*ids.shape, states.shape[-1]).masked_scatter(real[..., None], states)

    def logits(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.network.get_output_embeddings()(hidden)
        return out

    def projection(self) -> Tensor | None:
        head = self.network.get_output_embeddings()
        plain: Tensor | None = head.weight if isinstance(head, nn.Linear) and head.bias is None else None
        return plain

    def new_cache(self) -> DynamicKeyValues:
        return DynamicKeyValues(self.network.config)

    def blocks(self) -> list[nn.Module]:
        return _recomputable(self.network)

    def vocabulary(self) -> list[nn.Parameter]:
        matrices = (self.network.get_input_embeddings().weight, self.network.get_output_embeddings().weight)
        return list({id(matrix): matrix for matrix in matrices}.values())

    def weights(self) -> dict[str, Tensor]:
        # some families name or cut their weights otherwise in memory than in files
        from transformers.core_model_loading import revert_weight_conversion

        found: dict[int, tuple[str, Tensor]] = {}
        for name, value in self.network.state_dict(keep_vars=True).items():
            if name not in (self.network._keys_to_ignore_on_save or ()):
                found.setdefault(id(value), (name, value))
        held: dict[str, Tensor] = revert_weight_conversion(self.network, dict(found.values()))
        return held

    def write_config(self, folder: Path, dtype: torch.dtype) -> None:
        config = copy.deepcopy(self.network.config)
        config.update({"dtype": str(dtype).removeprefix("torch."), "architectures": [type(self.network).__name__]})
        with _quiet():
            config.save_pretrained(str(folder))


def _recomputable(network: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def _starts(document: Tensor) -> Tensor:
    """The column at which each token's document begins, int64 [batch, tokens]."""
    column = torch.arange(document.shape[1], device=document.device).expand_as(document)
    begins = torch.ones_like(document, dtype=torch.bool)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    return column.masked_fill(~begins, 0).cummax(1).values


def check_config(folder: Path) -> None:
    """Raises: ModelError when transformers does not know the model of ``folder``, or its logits are more than a projection."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a configuration class meets
        raise ModelError(f"{folder}/config.json cannot be read by transformers ({_first_line(error)}).") from error
    if config.to_dict().get("quantization_config") is not None:
        raise ModelError(f"{folder} holds quantised weights: save the model in float32 or bfloat16 first.")
    _plain_logits(folder, config)
    _fits(folder, config)


def _plain_logits(folder: Path, config: Any) -> None:
    stated = config.to_dict()
    found = [f"{name}={stated[name]!r}" for name in TREATMENTS if stated.get(name) not in (None, 1)]
    if found:
        raise ModelError(
            f"{folder} holds a {config.model_type!r} model with {', '.join(found)}, and logits that are more than a projection "
            "are not supported: use a model without."
        )


def _fits(folder: Path, config: Any) -> None:
    """Compare what the configuration describes with what the files hold, before memory is taken for either."""
    from transformers import AutoModelForCausalLM

    factory: Any = AutoModelForCausalLM
    try:
        with torch.device("meta"):
            network = factory.from_config(config)
    except Exception as error:  # transformers raises whatever an architecture meets
        raise ModelError(f"{folder} cannot be loaded by transformers ({_first_line(error)}).") from error
    described = sum(value.numel() for value in network.parameters())
    held = sum(math.prod(shape) for _, shape in weights(folder))
    if described > 2 * held:
        raise ModelError(
            f"{folder}/config.json describes {described:,} parameters, and the files hold {held:,}: copy weights and "
            "configuration of one model."
        )


def load(folder: Path) -> HuggingFaceLM:
    """The folder's model in float32, in evaluation mode, on the CPU.

    Raises: ModelError when transformers cannot load it, when weights are missing, surplus or misshapen, and when packing,
    padding, caching or projecting gives other logits than its own forward pass.
    """
    check_config(folder)
    model = HuggingFaceLM(_network(folder, torch.float32))
    accept(model, folder)
    return model


def accept(model: HuggingFaceLM, folder: Path) -> None:
    """Try whether ``model``, which computes in float32, can be packed, padded and cached. Raises: ModelError as `load` does."""
    network = model.network
    if "position_ids" not in inspect.signature(network.base_model.forward).parameters:
        raise ModelError(
            f"{folder} holds a {network.config.model_type!r} model, which takes no position_ids, so that documents cannot be "
            "packed: use a model that does."
        )
    verify(model, folder)
    model.shares = shares(model)
    attend_by_document(model, folder)


def mapped(folder: Path) -> HuggingFaceLM:
    """The folder's model for reading only, as its files hold it. Raises: ModelError when transformers cannot load it whole."""
    return HuggingFaceLM(_network(folder, "auto").requires_grad_(False))


def _network(folder: Path, dtype: torch.dtype | str) -> Any:
    from transformers import AutoModelForCausalLM

    with _quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises whatever an architecture meets
            raise ModelError(f"{folder} cannot be loaded by transformers ({_first_line(error)}).") from error
    network, report = loaded
    for key, what in (("missing_keys", "is missing"), ("unexpected_keys", f"is not part of a {network.config.model_type}")):
        for name in sorted(report[key]):
            raise ModelError(f"{folder}: the weight {name!r} {what}: copy weights and configuration of one model.")
    return network


def attend_by_document(model: HuggingFaceLM, folder: Path) -> None:
    """Spare packed rows their mask where the architecture's attention comes from transformers' registry and gives the same."""
    network = model.network
    before = network.config._attn_implementation
    if before != "sdpa":
        return
    packed_attention.register()
    network.set_attn_implementation(packed_attention.NAME)
    model.by_document = True
    try:
        verify(model, folder)
    except (ModelError, NotImplementedError, TypeError):  # it stays with the mask, which has been verified
        model.by_document = False
        network.set_attn_implementation(before)


@torch.no_grad()
def verify(model: HuggingFaceLM, folder: Path) -> None:
    """Try on a few tokens whether the adapted model is the model. Raises: ModelError naming what is not."""
    # spread over the vocabulary: special tokens that were never trained magnify rounding
    ids = (torch.arange(1, 12, device=model.device) * 7919 % model.vocab_size)[None]
    long, short = ids[:, :7], ids[:, 7:]
    apart = [model.network(input_ids=ids, use_cache=False).logits for ids in (long, short)]
    for what, logits in _tried(model, long, short):
        wanted = torch.cat(apart, 1) if logits.shape[1] > apart[0].shape[1] else apart[0]
        worst = float((logits - wanted).abs().max() / wanted.abs().max())
        if not worst <= ROUNDING:
            raise ModelError(
                f"{folder} holds a {model.network.config.model_type!r} model, whose logits differ from transformers' own by "
                f"{worst:.2g} of the largest when {what}: use a model with causal attention and plain logits."
            )


def _tried(model: HuggingFaceLM, long: Tensor, short: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each way of reading ``long`` that must give its logits, or those of both when packed."""
    yield "hidden states are projected", model(long)
    document = torch.tensor([[7] * long.shape[1] + [2] * short.shape[1]], device=long.device)
    yield "documents are packed", model(torch.cat([long, short], 1), document=document)
    padded, pads = torch.cat([short[:, :2], long], 1), torch.tensor([2], device=long.device)
    yield "rows are padded", model.logits(model.hidden(padded, left_pad=pads)[:, 2:])
    cache = model.new_cache()
    pieces = [model.hidden(part, left_pad=torch.zeros_like(long[:, 0]), cache=cache) for part in (long[:, :4], long[:, 4:])]
    yield "earlier tokens are cached", model.logits(torch.cat(pieces, 1))


@torch.no_grad()
def shares(model: HuggingFaceLM) -> bool:
    """Whether what was read once can be continued in several ways: layers that keep all keys, and give the same logits."""
    from transformers.cache_utils import DynamicLayer

    cache = model.new_cache()
    if any(type(layer) is not DynamicLayer for layer in cache.held.layers):
        return False
    ids = (torch.arange(1, 8, device=model.device) * 7919 % model.vocab_size)[None]
    wanted = model(ids)[0]
    model.hidden(ids[:, :5], cache=cache)
    lengths = torch.tensor([5, 3], device=model.device)
    tails = torch.stack([ids[0, 5:7], ids[0, 3:5]])
    states = model.hidden(tails, left_pad=5 - lengths, cache=cache.spread(torch.zeros_like(lengths), lengths))
    found = model.logits(states)
    worst = torch.stack([found[0] - wanted[5:7], found[1] - wanted[3:5]]).abs().max() / wanted.abs().max()
    return bool(worst <= ROUNDING)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or notes of transformers: what matters of them is raised."""
    from transformers.utils import logging as library

    logging: Any = library
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")

"""GiB of a fine-tuning by term, on each device and in the host memory of a node: arithmetic over a model's sizes alone.

Upper bounds: gradients stand as from a second micro-batch on, and every document of a micro-batch has full length. What
DeepSpeed holds is read from its sources (0.19): `deepspeed/runtime/zero/stage_1_and_2.py` and `stage3.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limit_lab.config import Hardware
from limit_lab.durations import documents
from limit_lab.hardware import LIVE_BUCKETS
from limit_lab.recipe import Finetune
from limit_lab.shapes import Shape

GIB = 2**30

#: Assumed: a CUDA context with the workspaces of its kernels, and what the allocator holds beside what comes and goes.
CONTEXT_GIB, SLACK = 1.0, 0.05
#: Assumed: a process with its libraries loaded, on a CPU and with CUDA.
PROCESS_GIB = {"cpu": 1.0, "gpu": 2.0}
#: Channels that the variable-length kernel adds to every head of query, key, value and output (`model.attention.Varlen`).
VARLEN_CHANNELS = 8

#: Terms that stay from the first step to the last.
STATES = ("weights", "adapters", "gradients", "master weights", "optimizer states")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """GiB by term at the moment of a run that needs most; a term that is not needed is not named."""

    moment: str
    terms: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.terms.values())

    @property
    def largest(self) -> str:
        return max(self.terms, key=lambda name: self.terms[name])

    @property
    def weights(self) -> float:
        """Weights with the copies that autocast makes of them."""
        return self._of("weights", "bf16 copies")

    @property
    def gradients(self) -> float:
        return self._of("gradients")

    @property
    def optimizer(self) -> float:
        """Optimizer states with the float32 weights that they update."""
        return self._of("master weights", "optimizer states")

    @property
    def states(self) -> float:
        """What stays from the first step to the last."""
        return self._of(*STATES)

    def _of(self, *names: str) -> float:
        return sum(self.terms.get(name, 0.0) for name in names)


def learnt(shape: Shape, recipe: Finetune) -> float:
    """Parameters that are trained: all, all but the vocabulary's, or those of the adapters."""
    if recipe.lora.rank:
        targets = recipe.lora.targets or list(shape.linear)
        return recipe.lora.rank * sum(shape.linear.get(name, 0.0) for name in targets)
    return shape.parameters - shape.vocabulary if recipe.freeze_embeddings else shape.parameters


def moments(recipe: Finetune) -> float:
    """Bytes a trained parameter of the optimizer's moments, which are float32."""
    return 4.0 if recipe.optimizer == "lionw" else 8.0


def device(shape: Shape, recipe: Finetune, hardware: Hardware) -> tuple[Memory, Memory, Memory]:
    """What a device holds at the turn to the backward pass, at the end of that, and in the optimizer's step."""
    lasting, turn, step = _lasting(shape, recipe, hardware), _turn(shape, recipe, hardware), _step(shape, recipe, hardware)
    # the embedding's gradient joins that of the projection, then both join what other micro-batches left
    end = {name: value for name, value in turn.items() if name in ("gathered weights", "buckets")}
    end["vocabulary's gradients"] = 3 * _vocabulary_gradient(shape, recipe, hardware)
    in_step = {**lasting, **step}
    if hardware.zero_stage in (1, 2):  # float32 gradients take the place of the others
        in_step["gradients"] = 0.0
    return (
        _memory("the backward pass", {**lasting, **turn}, hardware),
        _memory("the end of the backward pass", {**lasting, **end}, hardware),
        _memory("the optimizer's step", in_step, hardware),
    )


def peak(shape: Shape, recipe: Finetune, hardware: Hardware) -> Memory:
    """What a device holds when it holds most."""
    return max(device(shape, recipe, hardware), key=lambda held: held.total)


def _memory(moment: str, found: Mapping[str, float], hardware: Hardware) -> Memory:
    terms = {name: value / GIB for name, value in found.items() if value}
    if hardware.accelerator == "gpu":
        passing = sum(value for name, value in terms.items() if name not in STATES)
        terms["context and slack"] = CONTEXT_GIB + SLACK * passing
    return Memory(moment=moment, terms=terms)


def _weight_bytes(recipe: Finetune, hardware: Hardware) -> int:
    """float32 on one device and under DDP, where autocast computes; ZeRO trains in bf16, and adapters leave bf16 untouched."""
    low = recipe.precision == "bf16" and (hardware.zero_stage > 0 or recipe.lora.rank > 0)
    return 2 if low else 4


def _lasting(shape: Shape, recipe: Finetune, hardware: Hardware) -> dict[str, float]:
    """Bytes from the first step to the last (Rajbhandari et al. 2020, section 3.1)."""
    zero, own = hardware.zero_stage, learnt(shape, recipe)
    of = hardware.ranks
    size = _weight_bytes(recipe, hardware)
    trained = size if zero else 4  # adapters outside ZeRO stay in float32
    offloaded = hardware.offload == "optimizer"
    found = {"weights": size * shape.parameters / (of if zero == 3 else 1)}
    if recipe.lora.rank:
        found["adapters"] = trained * own / (of if zero == 3 else 1)
    found["gradients"] = trained * own / (of if zero >= 2 else 1)
    if offloaded and zero >= 2:  # both are in host memory then
        found["gradients"] = 0.0
    found["master weights"] = 4 * own / of if zero and not offloaded else 0.0
    found["optimizer states"] = 0.0 if offloaded else moments(recipe) * own / (of if zero else 1)
    return found


def _turn(shape: Shape, recipe: Finetune, hardware: Hardware) -> dict[str, float]:
    """Bytes that come and go, at the turn from the forward to the backward pass."""
    zero, size = hardware.zero_stage, _weight_bytes(recipe, hardware)
    found: dict[str, float] = {}
    if recipe.precision == "bf16" and size == 4:
        found["bf16 copies"] = 2 * shape.parameters
    if zero == 3 and hardware.ranks > 1:  # one device uses its partition itself
        found["gathered weights"] = size * min(shape.parameters, LIVE_BUCKETS * hardware.bucket_elements + largest(shape))
    found["buckets"] = _buckets(shape, recipe, hardware)
    found["activations"] = activations(shape, recipe, hardware)
    found["logits"] = logits(shape, recipe, hardware)
    found["vocabulary's gradients"] = _vocabulary_gradient(shape, recipe, hardware)
    return found


def _vocabulary_gradient(shape: Shape, recipe: Finetune, hardware: Hardware) -> float:
    """Bytes of the projection's gradient, which waits from the loss to the embedding's where one matrix is both."""
    learns = not recipe.lora.rank and not recipe.freeze_embeddings
    return _weight_bytes(recipe, hardware) * shape.vocab_size * shape.d_model if learns else 0.0


def _buckets(shape: Shape, recipe: Finetune, hardware: Hardware) -> float:
    """Bytes of the buckets in which gradients (and weights, under ZeRO-3) travel.

    DDP copies all gradients into its buckets. ZeRO-1 and 2 fill one while the other travels; ZeRO-3 fills one, and gathers
    the next weights into another where there is anything to gather.
    """
    if hardware.strategy == "ddp":
        return 4 * learnt(shape, recipe)
    zero, bucket = hardware.zero_stage, _weight_bytes(recipe, hardware) * hardware.bucket_elements
    if zero == 3:
        return bucket * (2 if hardware.ranks > 1 else 1)
    return 2 * bucket if zero else 0


def _step(shape: Shape, recipe: Finetune, hardware: Hardware) -> dict[str, float]:
    """Bytes that come and go in the optimizer's step, beside the states."""
    zero, own = hardware.zero_stage, learnt(shape, recipe)
    found: dict[str, float] = {}
    if zero == 3:
        found["buckets"] = _weight_bytes(recipe, hardware) * hardware.bucket_elements
    if hardware.offload == "optimizer":  # the step is taken in host memory
        return found
    at_once = min(own / hardware.ranks, hardware.sub_group_elements if zero == 3 else own) if zero else own
    if zero:
        found["gradients in float32"] = 4 * at_once
    if hardware.accelerator == "cpu" or recipe.optimizer != "adamw":  # torch's fused AdamW on a GPU needs nothing beside it
        copies = 2 if recipe.optimizer == "adamw" else 1
        found["update"] = 4 * copies * (at_once if zero else min(own, largest(shape)))  # else one tensor at a time
    return found


def largest(shape: Shape) -> float:
    """Elements of the largest matrix: the vocabulary's, or one of a feed-forward layer of four widths."""
    return float(max(shape.vocab_size * shape.d_model, 4 * shape.d_model**2))


def fed(recipe: Finetune, hardware: Hardware) -> int:
    """Tokens of a micro-batch whose documents all have full length."""
    return documents(hardware.micro_batch, name="hardware.micro_batch") * recipe.max_seq_tokens


def activations(shape: Shape, recipe: Finetune, hardware: Hardware) -> float:
    """Bytes that the blocks keep for the backward pass.

    A token and layer keep the inputs and outputs of the linear layers but for those that only join the residual stream, the
    inputs of the norms and the output of attention: 17 widths in an MPT (Korthikanti et al. 2022, section 4.1, without dropout
    and scores). bf16 takes 2 bytes, but the norms' inputs 4, since autocast computes norms in float32. With recomputation,
    every block keeps its input, and one block at a time all of the rest.
    """
    low = recipe.precision == "bf16"
    size = 2 if low else 4
    inner = sum(shape.linear.values()) / shape.n_layers or 16 * shape.d_model
    each = size * (inner + shape.d_model) + (4 * shape.d_model if low else 0) + _attention_channels(shape, hardware, size)
    tokens, layers = fed(recipe, hardware), shape.n_layers
    if not hardware.recompute:
        return tokens * layers * each + _scores(shape, recipe, hardware, layers)
    return tokens * (layers * _weight_bytes(recipe, hardware) * shape.d_model + each) + _scores(shape, recipe, hardware, 1)


def _attention_channels(shape: Shape, hardware: Hardware, size: int) -> int:
    """Bytes a token and layer of the channels that carry ALiBi through a kernel that knows none."""
    varlen = hardware.attention == "varlen" or (hardware.attention == "auto" and hardware.accelerator == "gpu")
    return size * 4 * VARLEN_CHANNELS * shape.n_heads if varlen and shape.kind == "mpt" else 0


def _scores(shape: Shape, recipe: Finetune, hardware: Hardware, layers: int) -> float:
    """Bytes of ALiBi's bias and of the scores in an MPT's attention.

    mask: a bias for every row, with a copy in bf16 for every layer; documents: one bias for all, and the scores of every
    document and layer, since torch has no fused kernel for that bias on a CPU.
    """
    rows = documents(hardware.micro_batch, name="hardware.micro_batch")
    low, one = recipe.precision == "bf16", shape.n_heads * recipe.max_seq_tokens**2
    if shape.kind != "mpt":
        return 0.0
    if hardware.attention == "mask":
        return rows * one * (4 + (2 * layers if low else 0))
    by_document = hardware.attention == "documents" or (hardware.attention == "auto" and hardware.accelerator == "cpu")
    return one * (4 + rows * layers * (2 if low else 4)) if by_document else 0.0


def logits(shape: Shape, recipe: Finetune, hardware: Hardware) -> float:
    """Bytes of the loss: three float32 values an entry of the logits, as autograd needs; or by chunks of the targets.

    Chunks make the projection's gradient in the forward pass, beside it (under autocast) the matrix and their product in bf16.
    """
    tokens = fed(recipe, hardware)
    plain = 12 * min(tokens, hardware.logits_at_once) * shape.vocab_size
    if tokens <= hardware.logits_at_once:
        return plain
    learns = not recipe.lora.rank and not recipe.freeze_embeddings
    autocast = recipe.precision == "bf16" and _weight_bytes(recipe, hardware) == 4
    beside = 2 * shape.vocab_size * shape.d_model * (1 + learns) if autocast else 0
    return max(plain, 6 * hardware.logits_at_once * shape.vocab_size + beside)


def host(shape: Shape, recipe: Finetune, hardware: Hardware) -> tuple[Memory, ...]:
    """What a node's host memory holds while weights load, while they are trained, and while they are exported.

    An export is written tensor by tensor and checked from its files, whose pages count though the system may take them back.
    """
    zero, every, own = hardware.zero_stage, shape.parameters, learnt(shape, recipe)
    processes = hardware.devices
    running = {"processes": PROCESS_GIB[hardware.accelerator] * processes * GIB}
    if zero == 3:  # rank zero reads, every rank keeps its part
        loading = {"weights read": 2 * every + 4 * largest(shape)}
        export = {"files mapped": 2 * every, "tensor on its way": 6 * largest(shape)}
    else:
        whole = kept = 4 * every * processes if hardware.accelerator == "cpu" else 0.0
        loading = {"model": whole, "files mapped": 2 * every}
        export = {"model": kept, "files mapped": 4 * every, "tensor on its way": 6 * largest(shape)}
    training: dict[str, float] = {}
    if hardware.accelerator == "cpu":
        held = peak(shape, recipe, hardware)
        training = {name: value * GIB * processes for name, value in held.terms.items()}
    if hardware.offload == "optimizer":
        split = own / hardware.nodes
        training["master weights"], training["optimizer states"] = 4 * split, moments(recipe) * split
        training["gradients in float32"], training["bf16 buffers"] = 4 * split, 2 * split
    phases = (("loading", loading), ("training", training), ("export", export))
    return tuple(
        Memory(moment=name, terms={term: value / GIB for term, value in {**running, **terms}.items() if value})
        for name, terms in phases
    )

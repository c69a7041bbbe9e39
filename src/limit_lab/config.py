"""The words of a study as typed configuration: one keyword-only dataclass per config group, checked before torch loads.

Hydra composes the YAML groups of ``conf/`` into `Study`; `__post_init__` holds the rules that span fields. The classes are
not frozen because OmegaConf would make them read-only and composition would fail; after composing nobody assigns to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from limit_lab.errors import ConfigError, did_you_mean, one_of
from limit_lab.fingerprints import ADDED
from limit_lab.hardware import Hardware as Hardware
from limit_lab.launch import Launch as Launch
from limit_lab.recipe import Finetune as Finetune
from limit_lab.suite import PROMPTING
from limit_lab.suite import Gauntlet as Gauntlet
from limit_lab.suite import Task as Task

#: Bumped whenever our own code changes results for an unchanged configuration.
NUMERICS = 1

#: Where the original gauntlet files lie, at the commit that `gauntlet/originals.json` holds the hashes of.
ORIGINALS = (
    "https://raw.githubusercontent.com/mosaicml/llm-foundry/8c8dd48f72168c5d51e2f7b151595892a8fba43d/scripts/eval/local_data"
)

VERBS = (
    *("study", "plan", "status", "report", "diff", "items", "harness", "dashboard", "export", "mix", "fetch"),
    "pretrain_micro",
)


@dataclass(kw_only=True)
class Source:
    """Where the rows of one source come from, and what is known of them before they are read."""

    kind: str = MISSING  # microworld | file | hub
    file: str | None = None  # kind=file: jsonl under data.dir, or an absolute path
    hub: str | None = None  # kind=hub: data set id on the Hugging Face Hub
    rows: int | None = None  # published number of rows, for the plan
    prompt_tokens: float | None = None  # published mean length, for the plan
    response_tokens: float | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if self.kind not in ("microworld", "file", "hub"):
            raise ConfigError(f"data.sources.*.kind={self.kind!r} is unknown: use microworld, file or hub.")
        if self.kind == "file" and not self.file:
            raise ConfigError("a source of kind=file needs its file: set data.sources.<name>.file=rows.jsonl.")


@dataclass(kw_only=True)
class Data:
    """The sources that mixtures draw from, by name."""

    name: str = MISSING
    dir: str | None = None
    sources: dict[str, Source] = field(default_factory=dict)


#: A mixture written out: ``lima:1000+instruct:5000``.
SPELLED = re.compile(r"[\w-]+:\d+(\+[\w-]+:\d+)*")


def spelled(text: str) -> Mixture | None:
    """The mixture that ``lima:1000+instruct:5000`` writes out, named ``lima_1000_plus_instruct_5000``; None for a name.

    Raises: ConfigError for a sample count of 0.
    """
    if not SPELLED.fullmatch(text):
        return None
    samples = {source: int(count) for source, count in (part.split(":") for part in text.split("+"))}
    return Mixture(name=written(samples), samples=samples)


def written(samples: Mapping[str, int]) -> str:
    """The name of samples that no file names."""
    return "_plus_".join(f"{source}_{count}" for source, count in samples.items())


@dataclass(kw_only=True)
class Mixture:
    """So many samples from each source, drawn by a seeded selection whose sizes are nested (1k lies inside 5k)."""

    name: str = MISSING
    samples: dict[str, int] = field(default_factory=dict)
    selection: str = "random"

    def __post_init__(self) -> None:
        for source, count in self.samples.items():
            if count < 1:
                raise ConfigError(f"mixture.samples.{source}={count} is no sample count: use 1 or more, or leave it out.")
        if self.selection != "random":
            raise ConfigError(f"mixture.selection={self.selection!r} is unknown: use random.")


@dataclass(kw_only=True)
class Model:
    """The base model: the embedded micro checkpoint, a folder, the Hub's files, or random weights of a stated shape."""

    name: str = MISSING
    path: str | None = None  # folder of a causal language model in the layout of transformers; goes before hub
    hub: str | None = None  # owner/name on the Hugging Face Hub: fetched into its local cache
    revision: str | None = None  # branch, tag or commit of hub; null: its main branch
    publisher: str | None = None  # the owner on the Hub whose files are the model itself, and no copy of it
    sha256: dict[str, str] = field(default_factory=dict)  # published hash of every weight file, by its name
    embedded: bool = False  # the checkpoint that ships inside the package
    kind: str = "mpt"  # model_type of config.json
    d_model: int = 128  # 0: no shape is stated, only the folder tells it
    n_layers: int = 4
    n_heads: int = 4
    vocab_size: int = 2048
    max_seq_len: int = 2048
    tokenizer: str | None = None  # folder; random weights take their tokenizer from here
    init_seed: int = 0
    adapters: str | None = field(default=None, metadata=ADDED)  # folder of LoRA adapters (peft) that are added to path or hub
    tied: bool = True  # the embedding is also the projection onto the vocabulary
    parameters: float | None = None  # published count; weights under this name must have the stated shape
    licence: str = field(default="not stated", metadata=ADDED)  # of the weights
    gone: str | None = None  # why the public weights cannot be fetched, with the remedy

    def __post_init__(self) -> None:
        if self.embedded and self.path is not None:
            raise ConfigError(
                f"model.path={self.path} would not be read, because model={self.name} is the embedded base: add model=mpt_7b, "
                "or another model of yours, or model.embedded=false."
            )
        if self.hub is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub):
            raise ConfigError(f"model.hub={self.hub} names no repository of the Hugging Face Hub: write it as owner/name.")
        if self.hub is not None and self.embedded:
            raise ConfigError(f"model.hub={self.hub} would not be read, because model={self.name} is embedded: add model=hf.")
        if self.adapters is not None and self.path is None and self.hub is None:
            raise ConfigError(f"model.adapters={self.adapters} belong to no base: name it with model.path or model.hub.")
        if self.revision is not None and self.hub is None:
            raise ConfigError(f"model.revision={self.revision} belongs to no repository: name one with model.hub=owner/name.")
        if self.d_model:
            self._check_shape()

    def _check_shape(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "vocab_size", "max_seq_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} is no size: use 1 or more.")
        if self.kind == "mpt" and self.d_model % self.n_heads:
            raise ConfigError(
                f"model.d_model={self.d_model} cannot be shared by model.n_heads={self.n_heads}: use a divisor of it."
            )

    @property
    def copied(self) -> bool:
        """Whether weights go under the name of a published model though no published hash vouches for them."""
        of_publisher = self.path is None and self.hub is not None and self.hub.split("/")[0] == self.publisher
        given = self.path is not None or self.hub is not None
        return given and self.parameters is not None and not self.sha256 and not of_publisher

    @property
    def title(self) -> str:
        """The name, with the mark of an unverified copy."""
        return f"{self.name} (unverified copy)" if self.copied else self.name


@dataclass(kw_only=True)
class Prompt:
    """The format that shapes every instruction, in training, answering and judging."""

    format: str = "alpaca"


@dataclass(kw_only=True)
class Export:
    """How fine-tuned weights are handed over. Only ``dtype`` changes a result, because what is exported is evaluated."""

    dtype: str = "float32"  # float32 | bf16
    shard_gib: float = 5.0  # largest file of weights
    keep: str = (
        "export"  # once a cell is evaluated. records: no weights | export: those exported | all: the last checkpoint too
    )
    push: str | None = None  # owner/name on the Hugging Face Hub, sent there once evaluated; * stands for the cell's id
    public: bool = False  # whether anybody may see a repository that push creates

    def __post_init__(self) -> None:
        one_of("export.dtype", self.dtype, ("float32", "bf16"))
        one_of("export.keep", self.keep, ("records", "export", "all"))
        if self.shard_gib <= 0:
            raise ConfigError(f"export.shard_gib={self.shard_gib} holds no weight: use more than 0, such as 5.")
        if self.push is not None and not re.fullmatch(r"[\w.-]+/[\w.*-]+", self.push):
            raise ConfigError(f"export.push={self.push} names no repository of the Hugging Face Hub: write it as owner/name.")

    @property
    def parameter_bytes(self) -> int:
        """Bytes that an exported parameter takes."""
        return 2 if self.dtype == "bf16" else 4


@dataclass(kw_only=True)
class Answers:
    """How each cell answers the open prompts."""

    name: str = MISSING
    prompts: str | None = None  # jsonl with the prompts; null: the embedded world writes them
    limit: int | None = None  # only the first prompts
    max_new_tokens: int = 1024
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    batch: int = 16

    def __post_init__(self) -> None:
        least = {"max_new_tokens": self.max_new_tokens, "batch": self.batch, "limit": 1 if self.limit is None else self.limit}
        for name, value in least.items():
            if value < 1:
                raise ConfigError(f"answers.{name}={value} leaves nothing to answer: use 1 or more.")
        if not self.seeds:
            raise ConfigError("answers.seeds=[] leaves nothing to answer: give it one seed or more.")
        if self.temperature < 0:
            raise ConfigError(f"answers.temperature={self.temperature} is negative: use 0 for greedy decoding.")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(f"answers.top_p={self.top_p}, answers.top_k={self.top_k}: use 0 < top_p <= 1 and top_k >= 0.")
        if self.temperature == 0 and len(self.seeds) > 1:
            raise ConfigError(f"answers.seeds={self.seeds} would repeat one greedy answer: use a single seed.")


@dataclass(kw_only=True)
class Judge:
    """The profile that compares the answers of a pair."""

    name: str = MISSING
    profile: str = MISSING  # ground_truth | length | alpaca_eval_gpt4
    tie_margin: float = 0.0  # score differences up to this count as ties
    usd_per_call: float = 0.0
    gone: str | None = None  # why a live call is impossible, with the remedy

    def __post_init__(self) -> None:
        one_of("judge.profile", self.profile, ("ground_truth", "length", "alpaca_eval_gpt4"))


@dataclass(kw_only=True)
class Tracking:
    """Where curves, scores and tables go besides the records, which are always written; outside every fingerprint."""

    name: str = MISSING
    kind: str = "none"  # none | wandb
    project: str = "limit_lab"
    entity: str | None = None  # user or team; null: the key's own
    mode: str = "auto"  # auto (online when there is a key) | online | offline

    def __post_init__(self) -> None:
        one_of("tracking.kind", self.kind, ("none", "wandb"))
        one_of("tracking.mode", self.mode, ("auto", "online", "offline"))
        if not self.project or len(self.project) > 128 or re.search(r"[/\\#?%:]", self.project):
            raise ConfigError(f"tracking.project={self.project!r} is no project name: use up to 128 signs without /\\#?%:.")


@dataclass(kw_only=True)
class Seeds:
    """The seeds of a cell: which rows are drawn, and in which order they are learnt."""

    subset: int = 0
    training: int = 0


@dataclass(kw_only=True)
class Microworld:
    """The embedded world. ``part`` is what evaluations see; the test part is looked at once."""

    seed: int = 0
    part: str = "test"  # development | test
    pretrain_tokens: int = 4_300_000
    pretrain_learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        one_of("microworld.part", self.part, ("development", "test"))


@dataclass(kw_only=True)
class Predicate:
    """A claim with its margin, fixed in a committed file before the numbers.

    kind=better: left exceeds right by more than margin; keeps: left keeps at least ``share`` of right's gain over ``over``;
    within: left is no worse than right by more than margin. ``measure`` is gauntlet (raw average), win_rate or judge_score.
    """

    claim: str = MISSING
    measure: str = MISSING
    kind: str = MISSING
    left: str = MISSING
    right: str = MISSING
    over: str | None = None
    share: float = 0.75
    margin: float = 0.0

    def __post_init__(self) -> None:
        one_of("study.predicates.*.measure", self.measure, ("gauntlet", "win_rate", "judge_score"))
        one_of("study.predicates.*.kind", self.kind, ("better", "keeps", "within"))
        if self.kind == "keeps" and self.over is None:
            raise ConfigError(f"the predicate {self.claim!r} keeps a gain over nothing: name the cell in 'over'.")


@dataclass(kw_only=True)
class Cells:
    """Which cells a study holds beside the configured one, what they are compared with, and what it set out to show."""

    name: str = "study"
    mixtures: list[str] = field(default_factory=list)  # further ones, before the configured: names, or lima:1000+instruct:5000
    axes: dict[str, list[Any]] = field(default_factory=dict)  # keys or groups with their values: the study is their product
    baseline: str | None = "lima"
    pairs: str = "baseline"  # baseline: every cell against it; all: every couple of cells too, for the win matrix
    frozen: str | None = None  # fingerprint of all that was fixed before the numbers were seen (limit_lab.frozen)
    predicates: list[Predicate] = field(default_factory=list)

    def __post_init__(self) -> None:
        one_of("study.pairs", self.pairs, ("baseline", "all"))

    @property
    def baseline_name(self) -> str | None:
        """The name of the baseline's mixture, which may be written out."""
        written = spelled(self.baseline) if self.baseline is not None else None
        return self.baseline if written is None else written.name


@dataclass(kw_only=True)
class Plan:
    """The argument of do=plan."""

    lookup: bool = False  # instead of this study, which hardware runs MPT-7B and 30B with this recipe's optimizer


@dataclass(kw_only=True)
class Report:
    """The arguments of do=report."""

    out: str | None = None  # folder of the page; null: beside the study's records
    studies: list[str] = field(default_factory=list)  # names of studies under runs/studies, on one page; none: this study


@dataclass(kw_only=True)
class Diff:
    """The two cells of do=diff: each an id below runs/cells, its mixture's name or another beginning of it, or a folder."""

    left: str | None = None
    right: str | None = None


@dataclass(kw_only=True)
class Fetch:
    """The argument of do=fetch."""

    address: str = ORIGINALS  # the task files lie below it

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^/\s]+\S*", self.address):
            raise ConfigError(f"fetch.address={self.address} is no address: write it as https://host/folder.")


@dataclass(kw_only=True)
class Harness:
    """The arguments of do=harness: tasks of lm-evaluation-harness, a suite of its own that enters no gauntlet average."""

    tasks: list[str] = field(default_factory=list)  # names of tasks, groups or tags
    include: str | None = None  # folder with task files (YAML) of your own
    path: str | None = None  # a model folder; null: the model of every cell of the study
    shots: int | None = None  # null: as each task states
    limit: int | None = None  # only the first rows of each task, and then its name says so
    batch: int = 8  # sequences at a time

    def __post_init__(self) -> None:
        for name, value in {"limit": 1 if self.limit is None else self.limit, "batch": self.batch}.items():
            if value < 1:
                raise ConfigError(f"harness.{name}={value} leaves nothing to ask: use 1 or more.")
        if self.shots is not None and self.shots < 0:
            raise ConfigError(f"harness.shots={self.shots} is no number of examples: use 0 or more, or null.")
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"harness.tasks names a task twice: {', '.join(sorted(self.tasks))}.")


@dataclass(kw_only=True)
class Items:
    """The arguments of do=items: which answers of which cells; cells are named as in do=diff."""

    cell: str | None = None
    against: str | None = None  # another cell, shown beside the first
    task: str | None = None  # null: the tasks with their counts
    prompting: str = "raw"
    only: str = "all"  # all | right | wrong | changed: right in one of the two cells and wrong in the other
    limit: int = 20
    data: str | None = None  # folder of the task files; null: where the cell found them

    def __post_init__(self) -> None:
        one_of("items.prompting", self.prompting, PROMPTING)
        one_of("items.only", self.only, ("all", "right", "wrong", "changed"))
        if self.only == "changed" and not self.against:
            raise ConfigError("items.only=changed compares two cells: name the other one with items.against=...")
        if self.limit < 1:
            raise ConfigError(f"items.limit={self.limit} shows nothing: use 1 or more.")


@dataclass(kw_only=True)
class Study:
    """One composed configuration: the configured cell, and the study it belongs to."""

    do: str = "study"
    runs: str = "runs"
    debug: bool = False
    data: Data = MISSING
    mixture: Mixture = MISSING
    model: Model = MISSING
    prompt: Prompt = field(default_factory=Prompt)
    finetune: Finetune = MISSING
    export: Export = field(default_factory=Export, metadata=ADDED)
    hardware: Hardware = MISSING
    gauntlet: Gauntlet = MISSING
    answers: Answers = MISSING
    judge: Judge = MISSING
    tracking: Tracking = MISSING
    launch: Launch = field(default_factory=lambda: Launch(name="local"), metadata=ADDED)
    seeds: Seeds = field(default_factory=Seeds)
    microworld: Microworld = field(default_factory=Microworld)
    study: Cells = field(default_factory=Cells)
    plan: Plan = field(default_factory=Plan)
    report: Report = field(default_factory=Report)
    diff: Diff = field(default_factory=Diff)
    fetch: Fetch = field(default_factory=Fetch, metadata=ADDED)
    harness: Harness = field(default_factory=Harness, metadata=ADDED)
    items: Items = field(default_factory=Items, metadata=ADDED)

    def __post_init__(self) -> None:
        one_of("do", self.do, VERBS)
        if self.launch.kind == "ray" and self.hardware.nodes > 1:
            raise ConfigError(
                f"launch={self.launch.name} gives a cell one node, and hardware.nodes={self.hardware.nodes}: use launch=slurm."
            )
        for source in self.mixture.samples:
            if source not in self.data.sources:
                raise ConfigError(
                    f"mixture.samples names the source {source!r}, which data={self.data.name} does not have"
                    f"{did_you_mean(source, self.data.sources)}"
                )

    @property
    def label(self) -> str:
        """What to call this cell: its mixture, and where its training was exported if that is not the end."""
        return self.mixture.name + (f", {self.finetune.export}" if self.mixture.samples and self.finetune.export else "")

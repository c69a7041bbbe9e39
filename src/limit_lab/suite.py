"""The gauntlet as configuration: tasks, how they are asked, and how their scores become averages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from omegaconf import MISSING

from limit_lab.errors import ConfigError, one_of
from limit_lab.fingerprints import ADDED

TYPES = ("language_modeling", "multiple_choice", "schema", "generation")

#: How a task may be asked: raw with its own shots (the paper's cell), raw without any, or bare inside the instruction template.
PROMPTING = ("raw", "raw_0_shot", "template")

#: A task's name; one that is asked with further numbers of shots carries them, as in gsm8k/5-shot.
LABEL = re.compile(r"[\w.+-]+(/(?P<shots>\d+)-shot)?")


@dataclass(kw_only=True)
class Task:
    """One gauntlet task; field names and defaults follow the gauntlet's own YAML."""

    label: str = MISSING  # a further number of shots of the same task: name/5-shot, which is asked with those alone
    type: str = MISSING  # language_modeling | multiple_choice | schema | generation
    file: str = MISSING  # jsonl under gauntlet.data
    shots: int = 0
    baseline: float = 0.0
    category: str | None = MISSING  # null: asked, and part of no average
    also: list[str] = field(default_factory=list, metadata=ADDED)  # further categories in which it counts
    rows: int | None = None  # only the first rows, and then the suite's name says so
    continuation_delimiter: str = " "
    prelimiter: str = ""
    cot_delimiter: str = ""
    stop: list[str] = field(default_factory=list)
    normalise: bool = True
    template: bool = True  # may also be asked inside the instruction template
    partner: str | None = None  # the task that asks the same questions in the other measure (exact match, likelihood)
    has_categories: bool = False  # rows are split by their category; the score is the plain mean over the categories

    def __post_init__(self) -> None:
        if self.type == "code_evaluation":
            raise ConfigError(
                f"the task {self.label} is a code_evaluation, which samples at random and runs what a model wrote, so that "
                "no score can be identical: leave it out."
            )
        one_of("gauntlet.tasks.*.type", self.type, TYPES)
        self._check_label()
        if self.also and self.category is None:
            raise ConfigError(
                f"the task {self.label} counts in {', '.join(self.also)} without a category of its own: name one."
            )
        if self.type == "schema" and self.template:
            raise ConfigError(f"the schema task {self.label} has no one question to put in a template: set template: false.")
        if self.type == "generation" and self.has_categories:
            raise ConfigError(f"the generation task {self.label} cannot be split by category: leave has_categories out.")
        if self.baseline >= 1:
            raise ConfigError(f"the task {self.label} has baseline={self.baseline}, which leaves no gain: use less than 1.")
        if self.shots < 0 or (self.rows is not None and self.rows < 1):
            raise ConfigError(f"the task {self.label} asks for {self.shots} shots, {self.rows} rows: use 0 and 1 or more.")

    def _check_label(self) -> None:
        found = LABEL.fullmatch(self.label)
        if not found:
            raise ConfigError(
                f"gauntlet.tasks.*.label={self.label!r} names no file of records: use letters, digits and _.+- alone."
            )
        if found["shots"] is None:
            return
        if int(found["shots"]) != self.shots:
            raise ConfigError(f"the task {self.label} has shots={self.shots}: make its label and its shots agree.")
        if self.template:
            raise ConfigError(f"the task {self.label} is asked with its {self.shots} shots alone: set template: false.")

    @property
    def name(self) -> str:
        """The label without shots."""
        return self.label.partition("/")[0]

    @property
    def categories(self) -> list[str]:
        """Every category in which the task counts, its own first."""
        return [*([] if self.category is None else [self.category]), *self.also]


@dataclass(kw_only=True)
class Gauntlet:
    """A suite of tasks with the categories that its averages are made of."""

    name: str = MISSING
    data: str | None = None  # folder with the task files; null: the embedded world writes them
    tasks: list[Task] = field(default_factory=list)
    average: list[str] = field(default_factory=list)  # categories of the headline average
    averages: dict[str, list[str]] = field(default_factory=dict, metadata=ADDED)  # further averages by name
    weighting: str = field(default="EQUAL", metadata=ADDED)  # of a category's tasks: EQUAL | SAMPLE_SZ | LOG_SAMPLE_SZ
    compat: str = field(default="sound", metadata=ADDED)  # sound: no partial average | strict: as the original, bugs too
    max_seq_tokens: int = 2048
    batch_tokens: int = 16384
    tokens: dict[str, float] = field(default_factory=dict)  # counted tokens that a model reads, by prompting, for the plan
    prompting: list[str] = field(default_factory=lambda: ["raw", "template"])
    shots: str = field(default="task", metadata=ADDED)  # of raw prompts: task (each its own) | 0 | both, apart from each other
    raw_only: bool = field(default=False, metadata=ADDED)  # says that the template is left out on purpose
    whole: str | None = field(default=None, metadata=ADDED)  # the published version that this suite is, or is a part of
    whole_rows: int | None = field(default=None, metadata=ADDED)  # rows of all its files, as published

    def __post_init__(self) -> None:
        one_of("gauntlet.weighting", self.weighting, ("EQUAL", "SAMPLE_SZ", "LOG_SAMPLE_SZ"))
        one_of("gauntlet.compat", self.compat, ("sound", "strict"))
        self._check_prompting()
        labels = [task.label for task in self.tasks]
        if len(set(labels)) < len(labels):
            raise ConfigError(
                f"gauntlet={self.name} names a task twice: {', '.join(sorted(labels))}; with further shots it is name/5-shot."
            )
        self._check_averages()
        if self.whole_rows is not None and (self.whole is None or self.whole_rows < 1):
            raise ConfigError(
                f"gauntlet.whole_rows={self.whole_rows} are the rows of gauntlet.whole={self.whole}: name it, with 1 or more."
            )

    def _check_prompting(self) -> None:
        if not self.prompting:
            raise ConfigError(f"gauntlet={self.name} has prompting=[] and would ask nothing: use raw, template or both.")
        for prompting in self.prompting:
            one_of("gauntlet.prompting", prompting, ("raw", "template"))
        one_of("gauntlet.shots", self.shots, ("task", "0", "both"))
        if self.shots != "task" and "raw" not in self.prompting:
            raise ConfigError(
                f"gauntlet.shots={self.shots} is about raw prompts: add raw to gauntlet.prompting, or leave it out."
            )
        framed = [task.label for task in self.tasks if task.template]
        if framed and "template" not in self.prompting and not self.raw_only:
            raise ConfigError(
                f"gauntlet.prompting={self.prompting} leaves out the template, which every study asks (here of {framed[0]}): "
                "add template, or say gauntlet.raw_only=true."
            )

    def _check_averages(self) -> None:
        known = {category for task in self.tasks for category in task.categories}
        for name in self.averages:
            if name in {*known, "average"}:
                raise ConfigError(f"gauntlet.averages.{name} has the name of a category or of the headline: choose another.")
        own = {"average": self.average} | {f"averages.{name}": categories for name, categories in self.averages.items()}
        for key, categories in own.items():
            unknown = set(categories) - known
            if unknown and self.compat != "strict":
                raise ConfigError(f"gauntlet.{key} names categories without a task: {', '.join(sorted(unknown))}.")

    @property
    def asked_as(self) -> list[str]:
        """The members of `PROMPTING` that this suite asks; their scores are never averaged together."""
        raw = {"task": ["raw"], "0": ["raw_0_shot"], "both": ["raw", "raw_0_shot"]}[self.shots]
        return [one for prompting in self.prompting for one in (raw if prompting == "raw" else [prompting])]


def asked(suite: Gauntlet, prompting: str) -> list[Task]:
    """The tasks that a suite asks in one member of `PROMPTING`, with their shots for raw prompts, in its order.

    Raises: ConfigError for an unknown one.
    """
    one_of("prompting", prompting, PROMPTING)
    if prompting == "raw":
        return list(suite.tasks)
    if prompting == "template":
        return [task for task in suite.tasks if task.template]
    return [replace(task, shots=0) for task in suite.tasks if task.label == task.name]

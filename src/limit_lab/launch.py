"""Where the cells of a study are made: on this machine, by Slurm, or by Ray. Outside every fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from limit_lab.errors import ConfigError, one_of


@dataclass(kw_only=True)
class Launch:
    """Who starts a cell's own process, and what a scheduler is asked for; devices and nodes are those of ``hardware``."""

    name: str = MISSING
    kind: str = "local"  # local | slurm | ray
    executor: str = "slurm"  # kind=slurm: slurm, or local, which runs submitit's jobs on this machine
    address: str | None = None  # kind=ray: of a running instance, or auto; null: one is started here and ends with the study
    partition: str | None = None
    account: str | None = None
    minutes: int = 1440  # of one job; a fine-tuning that takes longer is requeued and goes on
    cpus: int | None = None  # of one job; null: hardware.threads, or 1
    signal_seconds: int = 120  # before the end of a Slurm job in which a fine-tuning writes its checkpoint
    requeues: int = 10  # times that a job whose time was up is continued
    sbatch: dict[str, str] = field(default_factory=dict)  # further parameters of sbatch, such as constraint: h100

    def __post_init__(self) -> None:
        one_of("launch.kind", self.kind, ("local", "slurm", "ray"))
        one_of("launch.executor", self.executor, ("slurm", "local"))
        least = {"minutes": self.minutes, "cpus": 1 if self.cpus is None else self.cpus, "signal_seconds": self.signal_seconds}
        for name, value in least.items():
            if value < 1:
                raise ConfigError(f"launch.{name}={value} leaves nothing to run with: use 1 or more.")
        if self.requeues < 0:
            raise ConfigError(f"launch.requeues={self.requeues} is negative: use 0 for jobs that are never continued.")
        if self.signal_seconds >= 60 * self.minutes:
            raise ConfigError(
                f"launch.signal_seconds={self.signal_seconds} is no less than launch.minutes={self.minutes}: a job would be "
                "asked to end when it starts; use fewer seconds."
            )

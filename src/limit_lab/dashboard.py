"""A study's W&B workspace as code: both paradigms, curves and tables, grouped by mixture and by size.

Written to ``dashboard.json`` beside the study's record; published where there is a key.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from limit_lab import store
from limit_lab.config import Study
from limit_lab.errors import ConfigError, LimitLabError
from limit_lab.suite import PROMPTING
from limit_lab.tracking import Connection, connect, run_id

#: Configuration keys that panels group their runs by.
GROUPS = {"mixture": "mixture.name", "size": "size"}


def run(cells: Sequence[Study]) -> Path:
    """Write the workspace of a finished study and publish it where there is a key; prints one sentence, returns the file.

    Raises: DataError when the study was never run; ConfigError without wandb-workspaces, or for mode=online without a key;
    LimitLabError when publishing fails.
    """
    study = cells[-1]
    connection = connect(study.tracking, Path(study.runs))
    folder = Path(study.runs) / "studies" / study.study.name
    path = folder / "dashboard.json"
    store.write_json(path, spec(build(study, study.tracking.entity)))
    if connection.online and study.tracking.kind == "wandb":
        print(f"{path}, published at {_publish(study, connection, path)}")
        return path
    why = connection.offline_because or f"tracking={study.tracking.name}"
    print(f"{path}, not published ({why}): do=dashboard tracking=wandb publishes it where there is a key ('wandb login').")
    return path


def spec(workspace: Any) -> dict[str, Any]:
    """The workspace as plain JSON values, the same for the same study whenever it is built."""
    view = workspace._to_model()  # the library states the server's format nowhere else
    text = view.spec.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "entity": view.entity or None,
        "project": view.project,
        "name": view.display_name,
        "spec": json.loads(text),
    }


def build(study: Study, entity: str | None) -> Any:
    """The study as a ``wandb_workspaces.workspaces.Workspace`` of a user or team; the library states no types.

    Raises: DataError when the study was never run, ConfigError without wandb-workspaces.
    """
    root = Path(study.runs)
    record = store.read_json(root / "studies" / study.study.name / "study.json")
    gauntlet, judge = _measures(root, record["cells"], record["pairs"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, about the library's own classes
        try:
            expr, panels, workspaces = (import_module(f"wandb_workspaces.{n}") for n in ("expr", "reports.v2", "workspaces"))
        except ImportError as error:
            raise ConfigError("do=dashboard needs wandb-workspaces: pip install 'limit-lab[tracking]'.") from error
    sections = _sections(panels, gauntlet, judge)
    for title, shown in sections.items():
        for number, panel in enumerate(shown):
            panel._id = f"{title.replace(' ', '-')}-{number}"  # instead of a random one
    columns = [f"config:{key}" for key in GROUPS.values()] + [f"summary:{name}" for name in [*gauntlet[:1], *judge[:1]]]
    return workspaces.Workspace(
        entity=entity or "",
        project=study.tracking.project,
        name=f"limit_lab {study.study.name}",
        sections=[workspaces.Section(name=title, panels=shown, is_open=True) for title, shown in sections.items()],
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(expr.Metric("ID").isin([run_id(name) for name in [*record["cells"], *record["pairs"]]])),
            pinned_columns=["run:displayName", *columns],
        ),
    )


def _sections(panels: Any, gauntlet: Sequence[str], judge: Sequence[str]) -> dict[str, list[Any]]:
    """Panels by the title of their section."""
    grouped = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    sections: dict[str, list[Any]] = {}
    for by, key in GROUPS.items():
        sections[f"both paradigms by {by}"] = [
            panels.BarPlot(
                title=f"{name} by {by}",
                metrics=[panels.SummaryMetric(name)],
                groupby=panels.Config(key),
                orientation="v",
                **grouped,
            )
            for name in [*gauntlet, *judge]
        ]
        sections[f"curves by {by}"] = [
            panels.LinePlot(
                title=f"{name} by {by}",
                x=panels.Metric("finetune/step"),
                y=[panels.Metric(f"finetune/{name}")],
                groupby=panels.Config(key),
                **grouped,
            )
            for name in ("loss", "grad_norm", "learning_rate")
        ]
    sections["both paradigms by size"] += [
        panels.ScatterPlot(title=f"{name} over size", x=panels.Config("size"), y=panels.SummaryMetric(name))
        for name in [*gauntlet[:1], *judge[:1]]
    ]
    names = ["scores", "card", "answers", *(["components"] if judge else [])]
    sections["tables"] = [panels.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in names]
    return sections


def _measures(root: Path, cells: Sequence[str], pairs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the gauntlet's and the judge's numbers that the study's runs carry, averages and rates first."""
    averages: dict[str, None] = {}
    categories: dict[str, None] = {}
    for name in cells:
        gauntlet = store.read_json(root / "cells" / name / "summary.json")["gauntlet"]
        for prompting in PROMPTING:
            found = gauntlet.get(prompting)
            if found and found["average"] is not None:
                averages[f"gauntlet/{prompting}/average"] = None
            categories |= {
                f"gauntlet/{prompting}/category/{each}": None for each in (found or {"categories": []})["categories"]
            }
    rates = {f"judge/{store.read_json(root / 'pairs' / name / 'summary.json')['measure']}": None for name in pairs}
    return [*averages, *categories], [*rates, *(["judge/score/cell"] if pairs else [])]


def _publish(study: Study, connection: Connection, path: Path) -> str:
    """Save the workspace, over the one that an earlier call published; returns its address. Raises: LimitLabError."""
    import wandb

    note = connection.folder / "dashboards.json"
    known = store.read_json(note) if note.is_file() else {}
    try:
        workspace = build(study, study.tracking.entity or wandb.Api().default_entity)
        place = f"{connection.url} {workspace.entity}/{workspace.project} {workspace.name}"
        if place in known:
            workspace._internal_name, workspace._internal_id = known[place]
        workspace.save()
    except Exception as error:  # whatever network, server or library say: the file is there, and the call is repeated
        said = " ".join(str(error).split())[:300]
        raise LimitLabError(f"{path} is written, but could not be published ({said}): run the same command again.") from error
    store.write_json(note, {**known, place: [workspace._internal_name, workspace._internal_id]})
    return str(workspace.url)

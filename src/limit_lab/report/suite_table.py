"""What this suite can tell, as sentences and a table: noise by task, detectable differences, and what blind answers score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from limit_lab.report.answer import listed
from limit_lab.report.arms import Arm
from limit_lab.report.chance import Chance, chance
from limit_lab.report.records import NOT_STATED, Cell, Task
from limit_lab.report.resolution import AVERAGE, Resolution, resolutions
from limit_lab.report.tables import WORDS, Table, altered, changed

#: A blind answer that scores more than this above the suite's chance is marked.
ABOVE_CHANCE = 0.05
#: A blank that a page keeps.
INDENT = "\u2003"
#: So many tasks are named with their share of the noise.
NAMED = 3

COLUMNS = ["score", "items", "clusters", "chance", "drawn", "always one answer"]
COLUMNS += ["of the variance", "standard error", "detectable, same items", "detectable, other items"]

Found = Mapping[str, Mapping[str, Resolution]]


def suite_tables(arms: Sequence[Arm]) -> list[tuple[str, Table]]:
    """For every prompting the sentences and the table; arms that were asked another suite than the first are left out."""
    told = []
    for prompting in WORDS:
        cells = _asked_alike(arms, prompting)
        if cells:
            found = resolutions(cells, prompting)
            sentences = f"{WORDS[prompting].capitalize()}: {_average(found)} {_loudest(found)}"
            told.append((sentences.strip(), _table(cells, prompting, found, altered(arms, [prompting]))))
    return told


def _asked_alike(arms: Sequence[Arm], prompting: str) -> list[Cell]:
    """The cells that were asked the tasks of the first one."""
    cells = [cell for arm in arms for cell in arm.cells.values() if prompting in cell.suites]
    return [cell for cell in cells if _asks(cell, prompting) == _asks(cells[0], prompting)]


def _asks(cell: Cell, prompting: str) -> tuple[object, ...]:
    suite = cell.suites[prompting]
    return suite.name, list(suite.tasks), list(suite.average), [task.baseline for task in suite.tasks.values()]


def _table(cells: Sequence[Cell], prompting: str, found: Found, note: str) -> Table:
    suite = cells[0].suites[prompting]
    marks = {label: "".join({changed(cell.suites[prompting], [label]) for cell in cells}) for label in suite.tasks}
    counted = [task for name in suite.average for task in suite.of(name)]
    rows = [[name, *_size(counted), *[NOT_STATED] * 3, *_cells(one)] for name, one in found[AVERAGE].items()]
    for name in suite.categories:
        tasks = suite.of(name)
        rows.append([name, *_size(tasks), *[NOT_STATED] * 3, *_cells(found["categories"][name])])
        rows += [
            [f"{INDENT}{task.label}{marks[task.label]}", *_size([task]), *_blind(task), *_cells(found["tasks"][task.label])]
            for task in tasks
        ]
    return Table(f"What the suite {suite.name} can tell, {WORDS[prompting]}", COLUMNS, rows, _note(suite.tasks.values()) + note)


def _size(tasks: Sequence[Task]) -> list[str]:
    clusters = {cluster for task in tasks for cluster in task.clusters}
    return [f"{sum(len(task.correct) for task in tasks):,}", f"{len(clusters):,}"]


def _blind(task: Task) -> list[str]:
    found = chance(task)
    if found is None:
        return [f"{task.baseline * 100:g}", NOT_STATED, NOT_STATED]
    drawn = NOT_STATED if found.drawn is None else f"{found.drawn * 100:.1f}"
    return [f"{task.baseline * 100:g}", drawn, f"{found.same * 100:.1f}{'§' if _above(task, found) else ''}"]


def _above(task: Task, found: Chance) -> bool:
    return max(found.same, found.drawn or 0.0) > task.baseline + ABOVE_CHANCE


def _cells(one: Resolution) -> list[str]:
    share = NOT_STATED if one.share is None else f"{one.share * 100:.1f} %"
    ends = [NOT_STATED if value is None else f"{value * 100:.1f}" for value in (one.paired, one.unpaired)]
    return [share, f"{one.error * 100:.1f}", *ends]


def _note(tasks: Iterable[Task]) -> str:
    told = (
        "Average and categories in points of the rescaled score, tasks (indented) in points of accuracy. Detectable: the "
        "smallest difference between two cells that a two-sided test at 5 % finds with a power of 80 %, 2.8 standard errors of "
        "it. Same items: paired, the mean over all couples of cells that answered the same items. Other items: unpaired, each "
        "cell has items of its own. Both cover the choice of items; other seeds and worlds add to them. Chance: what the suite "
        "subtracts. Drawn: what an evenly drawn choice scores on these items. Always one answer: what the most common right "
        "answer scores when it is always given."
    )
    if any((blind := chance(task)) and _above(task, blind) for task in tasks):
        told += f" § an answer that never looks at the question scores over {ABOVE_CHANCE * 100:g} points above chance."
    return told


def _average(found: Found) -> str:
    one = found[AVERAGE].get(AVERAGE)
    if one is None or one.unpaired is None:
        return ""
    own = f"{one.unpaired * 100:.1f}"
    if one.paired is None:
        return f"Two cells that answer items of their own differ detectably from {own} points of the average on."
    return (
        f"Two cells that answer the same items differ detectably from {one.paired * 100:.1f} points of the average on, "
        f"two that answer items of their own from {own} on."
    )


def _loudest(found: Found) -> str:
    shares = {label: one.share for label, one in found["tasks"].items() if one.share}
    named = sorted(shares, key=lambda label: -shares[label])[:NAMED]
    if len(shares) < 2:
        return ""
    return f"Most of the average's variance comes from {listed([f'{name} ({shares[name] * 100:.0f} %)' for name in named])}."

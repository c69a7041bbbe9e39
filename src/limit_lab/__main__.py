"""The front door: arguments -> composed study -> do=<verb>. Whatever goes wrong is one sentence and an exit code.

0: done. 1: the run failed or the preflight refused. 2: the configuration is wrong, nothing was started. 75: ended by a
scheduler's signal, to be continued by the same command. 130: interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from limit_lab import __version__, interruption
from limit_lab.config import Study
from limit_lab.errors import ConfigError, LimitLabError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; python -m limit_lab --help shows what there is.")


def main(argv: list[str] | None = None) -> int:
    """Run one call of the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    # read when torch loads: threads that spin while they wait run at a third of the speed beside any other busy program
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "debug=true" in [argument.lower() for argument in arguments]
    try:
        return _call(arguments)
    except ConfigError as error:
        return _fail(error, debug, 2)
    except LimitLabError as error:
        return _fail(error, debug, 1)
    except interruption.ToBeContinued as left:
        _say(str(left), error=True)
        return interruption.STATUS
    except KeyboardInterrupt:
        _say("interrupted: the same command continues where this one stopped.", error=True)
        return 130
    except OSError as error:
        if (sentence := _of_the_disk(error)) is None:
            raise
        _say(sentence, error=True)
        return 1


def _call(arguments: list[str]) -> int:
    options = _parse(arguments)
    if options.version:
        _say(f"limit_lab {__version__}")
        return 0
    if options.shell_completion:
        return _complete(options.overrides)
    if options.help or not (options.overrides or options.cfg or options.multirun):
        from limit_lab.help import page

        _say(page(options.config_dir))
        return 0
    if options.cfg:
        _say(_composed(options))
        return 0
    if options.multirun:
        return _each(options.overrides, options.config_dir)
    _run(options.overrides, options.config_dir)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m limit_lab", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-cd", "--config-dir", type=Path)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    return parser.parse_intermixed_args(arguments)


def _composed(options: argparse.Namespace) -> str:
    """What ``--cfg`` prints: the configuration as YAML, checked like every other call."""
    from omegaconf import OmegaConf

    from limit_lab.compose import compose, compose_node

    compose(options.overrides, options.config_dir)
    node = compose_node(options.overrides, options.config_dir, with_hydra=options.cfg != "job")
    shown = node.hydra if options.cfg == "hydra" else node
    if options.package is not None and (shown := OmegaConf.select(shown, options.package)) is None:
        raise ConfigError(f"--package {options.package}: the configuration has no such node.")
    return (OmegaConf.to_yaml(shown, resolve=options.resolve) if OmegaConf.is_config(shown) else str(shown)).rstrip("\n")


def _each(overrides: list[str], user: Path | None) -> int:
    """``-m``: one study after another; all compose before the first starts; a failing one does not stop the rest."""
    from limit_lab.compose import compose, directories
    from limit_lab.grid import cells
    from limit_lab.overrides import check, expand

    places = directories(user)
    check(overrides, places)
    runs = [(run, cells(compose(run, user), run, user)) for run in expand(overrides, places)]
    failed = 0
    for number, (run, study) in enumerate(runs, 1):
        _say(f"[{number} of {len(runs)}] {' '.join(run)}")
        try:
            _do(study)
        except LimitLabError as error:
            failed += 1
            _fail(error, "debug=true" in run, 1)
    if failed:
        _say(f"{failed} of {len(runs)} failed: the same command continues with them.", error=True)
    return 1 if failed else 0


def _run(overrides: list[str], user: Path | None) -> None:
    from limit_lab.compose import compose
    from limit_lab.grid import cells, shrunk

    study = compose(overrides, user)
    for sentence in shrunk(study, overrides):
        _say(sentence, error=True)
    _do(cells(study, overrides, user))


def _do(study: list[Study]) -> None:
    if study[-1].hardware.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(study[-1].hardware.threads)  # before the verb loads torch
    with interruption.listening():
        DO[study[-1].do](study)


def _study(cells: list[Study]) -> None:
    from limit_lab import plan
    from limit_lab.model.bases import fetch

    fetch(cells, unstated=True)
    plan.preflight(cells)
    fetch(cells)
    from limit_lab.study import run

    run(cells)


def _plan(cells: list[Study]) -> None:
    if cells[-1].plan.lookup:
        from limit_lab import lookup

        _say(lookup.table(cells[-1].finetune))
        return
    from limit_lab import plan

    _say(plan.describe(cells))


def _status(cells: list[Study]) -> None:
    from limit_lab.status import show

    show(cells)


def _report(cells: list[Study]) -> None:
    from limit_lab.study import report

    report(cells)


def _diff(cells: list[Study]) -> None:
    from limit_lab.diff import show

    show(cells[-1])


def _harness(cells: list[Study]) -> None:
    from limit_lab.harness import run

    run(cells)


def _items(cells: list[Study]) -> None:
    from limit_lab.items import show

    show(cells[-1])


def _dashboard(cells: list[Study]) -> None:
    from limit_lab.dashboard import run

    run(cells)


def _mix(cells: list[Study]) -> None:
    from limit_lab.model.bases import fetch
    from limit_lab.study import mix

    fetch(cells)
    mix(cells)


def _export(cells: list[Study]) -> None:
    from limit_lab.study import export

    export(cells)


def _fetch(cells: list[Study]) -> None:
    from limit_lab.gauntlet import fetching

    fetching.run(cells[-1])


def _pretrain_micro(cells: list[Study]) -> None:
    from limit_lab.microworld import pretrain

    pretrain.run(cells[-1])


#: What each verb of `config.VERBS` calls.
DO: dict[str, Callable[[list[Study]], None]] = {
    "study": _study,
    "plan": _plan,
    "status": _status,
    "report": _report,
    "diff": _diff,
    "harness": _harness,
    "items": _items,
    "dashboard": _dashboard,
    "export": _export,
    "mix": _mix,
    "fetch": _fetch,
    "pretrain_micro": _pretrain_micro,
}


def _complete(arguments: list[str]) -> int:
    """Hydra's shell completion (``-sc install=bash``), which reads the command line itself and starts nothing."""
    import hydra

    from limit_lab.compose import config_dir, register

    register()
    before, sys.argv = sys.argv, [sys.argv[0], "--shell-completion", *arguments]
    try:
        hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(lambda _: None)()
    finally:
        sys.argv = before
    return 0


def _of_the_disk(error: OSError) -> str | None:
    """What a full or forbidden disk said, as a sentence; None for any other error of the system."""
    from limit_lab.store import FULL

    if error.errno in FULL:
        return f"the disk is full ({error.filename or 'no space left'}): free some space, and the same command continues."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST) and error.filename:
        return f"{error.filename} refuses ({error.strerror}): give access to it, or pass another folder with runs=..."
    return None


def _fail(error: LimitLabError, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    else:
        _say(str(error), error=True)
    return code


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())

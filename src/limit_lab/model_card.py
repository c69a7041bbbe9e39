"""The README.md of exported weights: what they were trained on and how, under which licences, and where they came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from limit_lab import recipe
from limit_lab.config import Study
from limit_lab.prompt import template
from limit_lab.report.records import flat

#: Licences by the names that the Hugging Face Hub has for them.
KNOWN = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
#: What stands in place of a licence that nobody stated, and of one for texts that this package generates.
UNSTATED, OWN = "not stated", "generated"
#: Tags on the Hub.
TAGS = ("limit_lab", "instruction-tuning")


def written(
    study: Study,
    card: Mapping[str, Any],
    *,
    fingerprint: str,
    verified: bool | None,
    command: str,
    provenance: Mapping[str, Any],
) -> str:
    """The card of a cell's export as Markdown with the Hub's front matter; ``card`` is that of its mixture.

    ``verified`` says whether published hashes vouch for the base (None: there are none to compare with).
    """
    front = yaml.safe_dump(front_matter(study), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {study.model.title} fine-tuned on {study.mixture.name}",
        "\n".join(_unverified(study, verified)),
        _mixture(study, card),
        _prompt(study.prompt.format),
        _recipe(study),
        _licences(study),
        _origin(study, fingerprint, command, provenance),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(study: Study) -> dict[str, Any]:
    """What the Hub reads of a card: licence, base model and data sets as far as they lie there, tags."""
    found: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if study.model.hub is not None:
        found |= {"base_model": study.model.hub, "base_model_relation": "finetune"}
    licences = {licence.lower().replace(" ", "-") for licence in _every_licence(study).values() if licence != OWN}
    if len(licences) == 1 and (one := next(iter(licences))) in KNOWN:
        found["license"] = one
    else:
        found |= {"license": "other", "license_name": "several-see-below" if len(licences) > 1 else "see-below"}
    datasets = [hub for name in study.mixture.samples if (hub := study.data.sources[name].hub)]
    return found | ({"datasets": datasets} if datasets else {}) | {"tags": [*TAGS, study.mixture.name]}


def noncommercial(licence: str) -> bool:
    """Whether a licence forbids commercial use, by its name."""
    return re.search(r"\bNC\b|non-?commercial", licence, re.IGNORECASE) is not None


def _every_licence(study: Study) -> dict[str, str]:
    """Licences by what they cover: the base, then each source."""
    sources = {name: study.data.sources[name].licence for name in study.mixture.samples}
    return {f"the base {study.model.name}": study.model.licence, **sources}


def _unverified(study: Study, verified: bool | None) -> list[str]:
    if verified is not False:
        return []
    return [
        f"**The base weights are an unverified copy**: no published hash vouches that they are those of {study.model.name}, so "
        "nothing here may be said of that model without naming the copy."
    ]


def _mixture(study: Study, card: Mapping[str, Any]) -> str:
    rows = [
        (
            *(name, f"{one['kept']:,} of {one['available']:,}", f"{one['dropped']:,}", f"{one['truncated']:,}"),
            *(f"{one['tokens']:,}", f"{one['loss_share']:.1%}", study.data.sources[name].licence),
        )
        for name, one in card["sources"].items()
    ]
    said = (
        f"{card['documents']:,} documents, {card['tokens']:,} tokens, {card['target_tokens']:,} of them targets; selection: "
        f"{study.mixture.selection}, subset seed {study.seeds.subset}."
    )
    columns = ("source", "kept", "dropped", "truncated", "tokens", "share of the loss", "licence")
    return f"## Mixture\n\n{said}\n\n{_table(columns, rows)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _prompt(format_name: str) -> str:
    fenced = f"```text\n{template(format_name)}\n```"
    return (
        f"## Prompt\n\nFormat `{format_name}`, as `chat_template.jinja` writes it and as `prompt_format.txt` holds it; the "
        f"answer begins right behind its last line feed and ends with the end-of-sequence token.\n\n{fenced}"
    )


def _recipe(study: Study) -> str:
    values = flat(recipe.identity(study.finetune)) | {"training seed": str(study.seeds.training)}
    weights = f"Exported as {study.export.dtype}."
    return f"## Recipe\n\n{weights}\n\n{_table(('setting', 'value'), [(key, f'`{value}`') for key, value in values.items()])}"


def _licences(study: Study) -> str:
    every = _every_licence(study)
    listed = "\n".join(f"- {name}: {licence}" for name, licence in every.items())
    forbidding = [name for name, licence in every.items() if noncommercial(licence)]
    silent = [name for name, licence in every.items() if licence == UNSTATED]
    said = []
    if forbidding:
        said.append(f"**Not for commercial use**: {_and(forbidding)} {'is' if len(forbidding) == 1 else 'are'} licensed so.")
    if silent:
        said.append(f"Nobody stated a licence for {_and(silent)}: ask before you pass these weights on.")
    return "\n\n".join(["## Licences", listed, *said])


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _origin(study: Study, fingerprint: str, command: str, provenance: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    where = study.model.hub or ("embedded" if study.model.embedded else study.model.name)
    at = f" at {study.model.revision}" if study.model.revision else ""
    lines = [
        f"- cell: `{fingerprint}`",
        f"- base: {where}{at}",
        f"- code: {provenance['git']}",
        f"- versions: Python {provenance['python']}, {versions}",
        f"- written: {provenance['written']}",
    ]
    return "\n".join(["## Where it came from", "", *lines, "", "```sh", command, "```"])

"""The page: one HTML file that needs nothing else, for screens of any size, in light and dark, and for paper."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

import yaml

from lit_fm.compare.charts import charts
from lit_fm.compare.methods import Comparison, Method
from lit_fm.compare.runs import Record
from lit_fm.compare.samples import samples
from lit_fm.compare.table import columns, shown
from lit_fm.compare.verdict import Verdict, judge, words

NEAREST = 4
"""Tokens that are shown for each vector of a soft prompt."""
VECTORS = 24


def page(found: Comparison) -> str:
    """The whole page. What comes from data is escaped, and the page's policy forbids network and any other script."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    verdict = judge(found)
    source = files("lit_fm.compare").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = charts(found, verdict.chosen)
    [script] = re.findall(r"<script>(.*?)</script>", source, re.S)
    return environment.from_string(source).render(
        verdict=verdict,
        found=found,
        metric=words(found.metric),
        facts=facts(found),
        columns=shown(found),
        rows=[(m, _mark(found, m, verdict)) for m in found.methods],
        lacking=_lacking(found),
        charts=[(name, heading, Markup(svg)) for name, (heading, svg) in drawn.items()],
        samples=samples(found),
        neighbours=[(m.label, neighbours(m.runs[0])) for m in found.methods if m.runs[0].neighbours],
        runs=[(m, run, provenance(run)) for m in found.methods for run in m.runs],
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def facts(found: Comparison) -> list[tuple[str, str]]:
    """What was compared on what."""
    runs = [run for m in found.methods for run in m.runs]
    sources = {str(s) for run in runs if (s := (run.config.get("data") or {}).get("init_args", {}).get("source"))}
    return [
        ("data", ", ".join(sorted(sources)) or "not said"),
        ("backbone", ", ".join(sorted({run.backbone for run in runs}))),
        ("test examples", f"{found.examples:,}"),
        ("methods", f"{len(found.methods)} in {len({run.folder for run in runs})} runs"),
    ]


def _mark(found: Comparison, method: Method, verdict: Verdict) -> str:
    """What a method is, as a class of its row."""
    if method is verdict.chosen:
        return "chosen"
    return "equal" if method in found.equal() else "worse"


def _lacking(found: Comparison) -> list[str]:
    """What the runs do not tell."""
    named = {"forgetting": "forgetting", "energy_joules": "energy", "latency": "latency"}
    known = {column.key for column in columns(found)}
    return [name for key, name in named.items() if key not in known]


def neighbours(run: Record) -> list[tuple[int, float, str, str]]:
    """Of each vector of a soft prompt: its cosine with what it began as, and the nearest tokens then and at the end."""
    first, last = run.neighbours[0]["tokens"], run.neighbours[-1]["tokens"]
    return [
        (
            i,
            after["cosine_with_start"],
            *("  ".join(n["token"] for n in t["nearest"][:NEAREST]) for t in (before, after)),
        )
        for i, (before, after) in enumerate(zip(first[:VECTORS], last[:VECTORS], strict=True), 1)
    ]


def provenance(run: Record) -> dict[str, str]:
    """Where a run came from, by what it is called; `config` whole."""
    made = run.made
    git, machine = made.get("git") or {}, made.get("hardware") or {}
    code = f"{git['commit']}{', with changes' if git.get('dirty') else ''}" if git.get("commit") else "not under git"
    data = {split: about.get("content", "") for split, about in (made.get("data") or {}).items()}
    version = made.get("lit_fm")
    told = {
        "folder": str(run.folder),
        "command": made.get("command", ""),
        "started": made.get("started", ""),
        "code": f"lit_fm {version}, {code}" if version else "",
        "packages": ", ".join(f"{name} {version}" for name, version in (made.get("packages") or {}).items() if version),
        "data": ", ".join(f"{split} {print_}" for split, print_ in data.items()),
        "machine": ", ".join(f"{key} {_plain(value)}" for key, value in machine.items()),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
    }
    return {key: text for key, text in told.items() if text}


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

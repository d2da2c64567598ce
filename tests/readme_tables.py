"""README's tables of results, made from committed records: `python -m tests.readme_tables` writes them into README.

A table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kernorm.studies.summary import Claim

ROOT = Path(__file__).parent.parent
SEARCH = "searches/search"
# Arms of the study of recipes next to its default, and their words.
MORE_RECIPES = {
    "best": "`--recipe best`",
    "best-60000": "`--recipe best --validation-size 0`, all 60,000 images",
    "quick": "`--recipe quick`",
}


def summary_of(name: str) -> dict[str, Any]:
    """Returns the summary of a committed study."""
    return json.loads((ROOT / "reports" / name / "summary.json").read_text(encoding="utf-8"))


def arms_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a summary holds by arm."""
    return {arm["name"]: arm for arm in summary["arms"]}


def half(interval: list[float] | None) -> str:
    """Returns ± half of an interval of accuracies, in points; nothing where there is none."""
    return f" ± {50 * (interval[1] - interval[0]):.2f}" if interval else ""


def points(value: float) -> str:
    """Returns a difference of accuracies in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Returns a table in Markdown."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def results() -> str:
    """Returns the table of what kernorm's own recipes reach."""
    arms = arms_of(summary_of("studies/recipes"))
    example = json.loads(next((ROOT / "reports/examples").glob("*/record.json")).read_text(encoding="utf-8"))
    test = example["test"]
    low, high = test["interval"]

    def row(words: str, arm: dict[str, Any]) -> tuple[str, ...]:
        score, runs = arm["scores"]["accuracy"], arm["scores"]["accuracy"]["n"]
        accuracy = f"**{100 * score['mean']:.2f}**{half(arm['generalization_interval'])}"
        minutes = f"{arm['cpu_seconds'] / runs / 60:.1f}"
        return words, "9,962", str(arm["config"]["epochs"]), str(runs), accuracy, minutes

    return table(
        ("what", "parameters", "epochs", "n", "test accuracy, %, ± 95 % for new images", "CPU-minutes a run"),
        [
            row("default flags (`bn`, no penalty)", arms["default"]),
            *(row(words, arms[name]) for name, words in MORE_RECIPES.items()),
            (
                f"the command above, seed {example['config']['seed']}",
                f"{example['parameters']:,}",
                str(example["config"]["epochs"]),
                "1",
                f"{100 * test['accuracy']:.2f} ({100 * low:.2f} to {100 * high:.2f} by n = {test['count']:,})",
                f"{example['cpu_seconds'] / 60:.1f}",
            ),
        ],
    )


def published(study: str) -> Callable[[], str]:
    """Returns a function that makes the table of a published study, in the form of the published one."""

    def row(arm: dict[str, Any]) -> tuple[str, ...]:
        config, score, last = arm["config"], arm["scores"].get("accuracy"), arm["last"]
        best = f"{100 * score['mean']:.2f}{half(score['interval'])}, n = {score['n']}" if score else "–"
        honest = f"{100 * last['score']['mean']:.2f}{half(last['score']['interval'])}" if last else "–"
        claims = [Claim(**claim) for claim in arm["claims"]]
        on = "none" if not claims else "on" if all(claim.kept for claim in claims) else "**not as stated**"
        return (
            config["norm"],
            f"{config['l1']:g}",
            f"{2 * config['l2']:g}",
            str(config["batch_size"]),
            f"{arm['published']['accuracy']:.2f}" if arm["published"] else "–",
            best,
            honest,
            points(last["gain"]) if last else "–",
            _verdict(arm),
            on,
        )

    def make() -> str:
        return table(
            (
                "norm",
                "λ1",
                "weight decay (2·λ2)",
                "batch",
                "published",
                "best epoch on test",
                "last epoch",
                "choosing on test",
                "verdict, last epoch",
                "penalty",
            ),
            [row(arm) for arm in summary_of(f"studies/{study}")["arms"]],
        )

    return make


def _verdict(arm: dict[str, Any]) -> str:
    if arm["baseline"] is None:
        return "baseline"
    last = arm["last"]
    if not last or last["verdict"]["name"] == "no verdict":
        return "none yet"
    difference = last["compared"]["difference"]
    return f"{points(difference)}, {last['verdict']['name']}"


def short_study() -> str:
    """Returns some rows of eva6 at three epochs."""
    summary = summary_of("studies/eva6-e3")
    arms = arms_of(summary)
    words = {
        "bn": "bn, no penalty",
        "gn": "gn, no penalty",
        "gn-l1_0.0995-b123": "gn, λ1 0.0995, batch 123",
        "ln-wd_0.0066-b32": "ln, weight decay 0.0066, batch 32",
    }
    rows: list[tuple[str, ...]] = []
    for name, text in words.items():
        arm = arms[name]
        found = arm["comparisons"].get("accuracy")
        difference = points(found["difference"]) if found else "–"
        failed = arm["failures"]
        if failed["collapsed"]:
            collapsed = f"{failed['collapsed']} of {failed['runs']} runs collapsed"
            difference += f"; {collapsed}: with that penalty really on, nothing is learned"
        mean = f"{100 * arm['scores']['accuracy']['mean']:.2f}{half(arm['generalization_interval'])}"
        rows.append((text, mean, difference, f"{arm['published']['accuracy']:.2f}" if arm["published"] else "–"))
    others = [arm for name, arm in arms.items() if name not in words]
    means = sorted(100 * arm["scores"]["accuracy"]["mean"] for arm in others)
    changes = sorted(arm["comparisons"]["accuracy"]["difference"] for arm in others)
    stated = sorted(arm["published"]["accuracy"] for arm in others)
    rows.append(
        (
            f"the other {len(others)} arms",
            f"{means[0]:.2f} to {means[-1]:.2f}",
            f"{points(changes[0])} to {points(changes[-1])}",
            f"{stated[0]:.2f} to {stated[-1]:.2f}",
        )
    )
    head = ("arm", "test accuracy, %, ± 95 % for new images", "difference to bn, points", "published")
    return table(head, rows)


def _trials() -> dict[str, dict[str, Any]]:
    """Returns the trials of the committed search by the names that its studies give them."""
    trials = json.loads((ROOT / "reports" / SEARCH / "tuner_results.json").read_text(encoding="utf-8"))
    return {f"trial {int(trial['trial_id']) + 1}": trial for trial in trials}


def _fresh(study: str, arm: str) -> float:
    """Returns an arm's mean validation cross-entropy on fresh seeds, in nats."""
    lines = (ROOT / "reports" / SEARCH / "studies" / study / "records.jsonl").read_text(encoding="utf-8").splitlines()
    found = [line for line in map(json.loads, lines) if line["arm"] == arm]
    return sum(line["record"]["validation"]["cross_entropy"] for line in found) / len(found)


def _settings(config: dict[str, Any]) -> str:
    """Returns a config's penalties and batch size in words."""
    penalties = [f"λ{power} {config[f'l{power}']:.3g}".replace("e-0", "e-") for power in (1, 2) if config[f"l{power}"]]
    return f"{', '.join(penalties) or 'no penalty'}, batch {config['batch_size']}"


def _against(arm: dict[str, Any]) -> str:
    """Returns an arm's difference to its baseline, the interval that decides, and the verdict."""
    if arm["baseline"] is None:
        return "baseline"
    interval = arm["verdict"]["interval"]
    bounds = f"[{points(interval[0])}, {points(interval[1])}]" if interval else "(no bound yet)"
    return f"{points(arm['comparisons']['accuracy']['difference'])} {bounds}, {arm['verdict']['name']}"


def search() -> str:
    """Returns the table of what the default search found, the confirmed best first."""

    def row(arm: dict[str, Any], study: str, words: str, trial: dict[str, Any] | None) -> tuple[str, ...]:
        score = arm["scores"]["accuracy"]
        accuracy = f"{100 * score['mean']:.2f}{half(arm['generalization_interval'])}"
        searched = f"{trial['score']:.4f}" if trial else "–"
        return words, searched, f"{_fresh(study, arm['name']):.4f}", accuracy, _against(arm)

    confirmed = sorted(summary_of(f"{SEARCH}/studies/confirm")["arms"], key=lambda arm: _fresh("confirm", arm["name"]))
    rows = [row(arm, "confirm", _settings(arm["config"]), _trials().get(arm["name"])) for arm in confirmed]
    words = {"found": "the best trial, trained in full", "not searched": "default flags, trained in full"}
    full = arms_of(summary_of(f"{SEARCH}/studies/final"))
    rows += [row(full[name], "final", text, None) for name, text in words.items()]
    head = (
        "arm",
        "validation cross-entropy: in the search",
        "on fresh seeds",
        "test accuracy, %, ± 95 % for new images",
        "difference, interval that decides",
    )
    return table(head, rows)


def clothes() -> str:
    """Returns the table of the study on Fashion-MNIST."""
    arms = summary_of("studies/fashion")["arms"]
    rows = [
        (
            arm["config"]["norm"],
            f"{arm['config']['l2']:g}",
            str(arm["scores"]["accuracy"]["n"]),
            f"{100 * arm['scores']['accuracy']['mean']:.2f}{half(arm['generalization_interval'])}",
            _against(arm),
        )
        for arm in arms
    ]
    return table(("norm", "λ2", "n", "test accuracy, %, ± 95 % for new images", "against bn"), rows)


def answers() -> str:
    """Returns what the studies answer to the published conclusions, one by one."""
    studies = {"eva4": "as stated", "eva4_as_run": "as it ran", "eva6": "as stated", "batch_size": "one rule for rates"}
    found = [
        (answer["statement"]["text"], f"[{words}](reports/studies/{study}/report.html)", answer)
        for study, words in studies.items()
        for answer in summary_of(f"studies/{study}")["answers"]
    ]
    # What one conclusion was asked of, together.
    order = list(dict.fromkeys(text for text, *_ in found))
    found.sort(key=lambda row: order.index(row[0]))
    rows = [
        (text, link, f"**{answer['name']}**", ". ".join(filter(None, (answer["text"], answer["statement"]["note"]))))
        for text, link, answer in found
    ]
    return table(("conclusion", "study", "holds", "figures"), rows)


def accelerator() -> str:
    """Returns the table of what populations are worth on a card."""
    with (ROOT / "reports/populations/h200.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return table(
        ("way", "runs side by side", "epochs of 50,000 images a second, all runs", "against one run"),
        [
            (
                "one after another" if row["way"] == "fit" else f"a population, convolutions {WAYS[row['lowering']]}",
                row["width"],
                f"{float(row['member_epochs_per_s']):.2f}",
                f"{float(row['against_fit']):.1f}",
            )
            for row in rows
        ],
    )


WAYS = {"grouped": "grouped", "patches": "as products of patches"}

TABLES: dict[str, Callable[[], str]] = {
    "results": results,
    "eva4": published("eva4"),
    "eva6": published("eva6"),
    "answers": answers,
    "h200": accelerator,
    "eva6-e3": short_study,
    "search": search,
    "fashion": clothes,
}


def figures() -> Iterator[str]:
    """Yields what README's text says of studies."""
    recipes = arms_of(summary_of("studies/recipes"))
    verdict, compared = recipes["best"]["verdict"], recipes["best"]["comparisons"]
    yield f"`best` is **{verdict['name']}** than the default flags"
    low, high = verdict["interval"]
    difference = 100 * compared["accuracy"]["difference"]
    yield f"{difference:.2f} points ({points(low)} to {points(high)} for {verdict['of']})"
    entropy = compared["cross_entropy"]
    low, high = entropy["interval"]
    yield f"cross-entropy is lower by {-entropy['difference']:.4f} ({-high:.4f} to {-low:.4f})"
    resolved = arms_of(summary_of("studies/recipes_cross_entropy"))["best"]
    entropy, verdict = resolved["comparisons"]["cross_entropy"], resolved["verdict"]
    low, high = verdict["interval"]
    yield (
        f"is **{verdict['name']}** by {-entropy['difference']:.4f} ({-high:.4f} to {-low:.4f}) after "
        f"{resolved['scores']['cross_entropy']['n']} seeds"
    )
    quick = recipes["quick"]
    yield f"`quick` against the default is {quick['verdict']['name']} with {quick['scores']['accuracy']['n']} seeds"
    stated = [
        arm["published"]["accuracy"]
        for name in ("eva4", "eva6")
        for arm in summary_of(f"studies/{name}")["arms"]
        if arm["published"]
    ]
    yield f"{min(stated):.2f} to {max(stated):.2f} %"
    confirmed = arms_of(summary_of(f"{SEARCH}/studies/confirm"))
    trial = min(_trials().keys() & confirmed, key=lambda name: _fresh("confirm", name))
    yield f"had looked better than it is by {_fresh('confirm', trial) - _trials()[trial]['score']:.4f}"
    if not {"better", "worse"} & {arm["verdict"]["name"] for arm in confirmed.values() if arm["verdict"]}:
        yield "Nothing is shown to be better than no penalty."
    on_card = summary_of("studies/eva4")
    assert on_card["side_by_side"] == on_card["finished"]
    seconds = on_card["seconds"] / on_card["finished"]
    yield f"A run of the study `eva4` (40 epochs of 60,000 images) took {seconds:.0f} seconds there"


def rendered(text: str) -> str:
    """Returns README's text with every table as the records have it."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"README must have a table between {begin.strip()} and {end.strip()}.")
        text = before + begin + make() + end + rest.partition(end)[2]
    return text


def main() -> int:
    """Writes the tables into README."""
    readme = ROOT / "README.md"
    readme.write_text(rendered(readme.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The charts of a search: scores over trials, what a budget buys, where the good trials lie, and what mattered."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from kernorm.limits import Range
from kernorm.reporting.figures import LETTERS, LOOKS, PALETTE, WIDTH, Panel, legend
from kernorm.reporting.format import concise
from kernorm.reporting.hover import of_arm, say
from kernorm.reporting.scales import logarithmic
from tuner.space import Space
from tuner.trials import Trial

_HEAT = LinearSegmentedColormap.from_list("score", [PALETTE["blue"], PALETTE["line"], PALETTE["heat"]])
LABELS = {"l1": "λ1", "l2": "λ2", "batch_size": "batch size", "learning_rate": "learning rate"}


def charts(space: Space, trials: Sequence[Trial], importance: dict[str, float]) -> dict[str, tuple[Panel, ...]]:
    """Returns every chart that the completed trials allow, by the name of its PNG file."""
    done = [trial for trial in trials if trial.score is not None]
    if not done:
        return {}
    found: dict[str, tuple[Panel, ...]] = {"progress": (progress(done, space), expected(done))}
    if len(done) > 2:
        found["space"] = (coordinates(space, done),)
        found["penalties"] = penalty_maps(space, done)
    if importance:
        found["importance"] = (bars(importance),)
    return {name: panels for name, panels in found.items() if panels}


def norms_of(space: Space) -> list[tuple[str, str]]:
    """Returns what a search's page can show and hide, with a colour each: the norms, where several are searched."""
    norms = space.norm if len(space.norm) > 1 else ()
    return [(norm, look[0]) for norm, look in zip(norms, (*LOOKS[1:], *LOOKS * 2), strict=False)]


def in_words(space: Space, trial: Trial) -> str:
    """Names a trial by what was searched, with its score."""
    settings = ", ".join(
        f"{LABELS.get(name, name)} {value(name, trial.settings[name])}" for name, _ in space.described()
    )
    score = "failed" if trial.score is None else f"cross-entropy {trial.score:.4f}"
    return f"trial {trial.number + 1}: {settings}; {score}"


def value(name: str, found: Any) -> str:
    """Writes the value of a searched setting."""
    if name in ("l1", "l2") and not found:
        return "off"
    return concise(found) if isinstance(found, float) else str(found)


def _place(space: Space, trial: Trial) -> int | None:
    """Returns the place of a trial's norm among those that can be hidden."""
    return space.norm.index(trial.settings["norm"]) if len(space.norm) > 1 else None


def progress(trials: Sequence[Trial], space: Space) -> Panel:
    """Every trial's score in the order of their ends, and the best so far."""
    scores = [trial.score or 0.0 for trial in trials]
    best = np.minimum.accumulate(scores)
    colours = norms_of(space) or [("a trial", "blue")]

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        places = range(1, len(scores) + 1)
        axes.step(places, best, where="post", color=PALETTE["muted"], label="best so far")
        for number, (name, colour) in enumerate(colours):
            mine = [place for place, trial in zip(places, trials, strict=True) if (_place(space, trial) or 0) == number]
            own = [scores[place - 1] for place in mine]
            gid = of_arm(number) if len(colours) > 1 else None
            marker = LOOKS[(number + 1) % len(LOOKS)][1] if len(colours) > 1 else "o"
            axes.plot(mine, own, marker, color=PALETTE[colour], markersize=5, label=name, gid=gid)
        for place, trial in zip(places, trials, strict=True):
            say(axes, [(place, scores[place - 1])], [in_words(space, trial)], _place(space, trial))
        axes.set(xlabel="trials", ylabel="validation cross-entropy, nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        logarithmic(axes, scores, over=4)
        legend(axes)

    text = f"The best of {len(scores)} trials scored {best[-1]:.4f}, trial {int(np.argmin(scores)) + 1} to end."
    return Panel("progress", "Scores over trials", text, (WIDTH, 3.1), draw)


def expected_best(scores: Sequence[float]) -> list[float]:
    """Returns the expected lowest score of m trials drawn from these, for m from 1 to their number (N).

    Exact for draws with replacement: Dodge et al. 2019, arXiv:1909.03004, for the minimum.
    """
    ordered = np.sort(np.asarray(scores, float))
    count = len(ordered)
    above = (count - np.arange(count + 1)) / count  # P(one draw is not among the k lowest)
    return [float(np.sum(ordered * (above[:-1] ** m - above[1:] ** m))) for m in range(1, count + 1)]


def expected(trials: Sequence[Trial]) -> Panel:
    """What a budget of m trials would have found on average."""
    values = expected_best([trial.score or 0.0 for trial in trials])

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.plot(range(1, len(values) + 1), values, color=PALETTE["blue"], label="expected best")
        told = [f"{many} trials: {value:.4f} expected" for many, value in enumerate(values, 1)]
        say(axes, enumerate(values, 1), told)
        axes.set(xlabel="budget, trials", ylabel="validation cross-entropy, nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        logarithmic(axes, values, over=4)

    text = f"One trial {values[0]:.4f}, half of them {values[len(values) // 2]:.4f}, all {values[-1]:.4f}."
    return Panel("expected", "Expected best against budget", text, (WIDTH, 3.1), draw)


def coordinates(space: Space, trials: Sequence[Trial]) -> Panel:
    """Parallel coordinates: a line a trial over the searched settings, coloured by score, the best ones on top."""
    names = [name for name, _ in space.described()]

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        shades, norm = _shades(trials)
        for trial in sorted(trials, key=lambda trial: -(trial.score or 0.0)):
            heights = [_height(space, name, trial.settings[name]) for name in names]
            place = _place(space, trial)
            gid = None if place is None else of_arm(place)
            colour = _HEAT(norm(shades[trial.trial_id]))
            axes.plot(range(len(names)), heights, color=colour, linewidth=1.4, alpha=0.85, gid=gid)
            ends = [(0, heights[0]), (len(names) - 1, heights[-1])]
            say(axes, ends, [in_words(space, trial)] * 2, place)
        for place, name in enumerate(names):
            axes.axvline(place, color=PALETTE["line"], linewidth=1)
            for height, text in _ticks(space, name):
                axes.text(
                    place + 0.06,
                    height,
                    text,
                    fontsize=LETTERS,
                    color=PALETTE["muted"],
                    va="center",
                    bbox={"facecolor": PALETTE["paper"], "alpha": 0.8, "pad": 0.8, "linewidth": 0},
                )
        axes.set(yticks=[], xlim=(-0.15, len(names) - 0.4), ylim=(-0.08, 1.08))
        axes.set_xticks(range(len(names)), [LABELS.get(name, name) for name in names])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        _bar(figure, axes, norm)

    size = (max(WIDTH, 1.3 + 0.75 * len(names)), 3.6)
    return Panel("coordinates", "Where the good trials lie", "A line a trial; blue is better.", size, draw)


def penalty_maps(space: Space, trials: Sequence[Trial]) -> tuple[Panel, ...]:
    """λ1 against λ2, a map a norm; `off` lies at the edge."""
    if not (isinstance(space.l1, Range) and isinstance(space.l2, Range)):
        return ()
    norms = sorted({trial.settings.get("norm", space.norm[0]) for trial in trials})
    return tuple(
        _map(space, norm, [t for t in trials if t.settings.get("norm", space.norm[0]) == norm], trials)
        for norm in norms
    )


def _map(space: Space, norm_name: str, shown: Sequence[Trial], trials: Sequence[Trial]) -> Panel:
    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        shades, norm = _shades(trials)
        x, y = ([_height(space, name, trial.settings[name]) for trial in shown] for name in ("l1", "l2"))
        colours = [_HEAT(norm(shades[trial.trial_id])) for trial in shown]
        axes.scatter(x, y, c=colours, s=44, edgecolors=PALETTE["muted"], linewidths=0.6)
        say(axes, zip(x, y, strict=True), [in_words(space, trial) for trial in shown])
        for name, set_ticks in (("l1", axes.set_xticks), ("l2", axes.set_yticks)):
            heights, texts = zip(*_ticks(space, name), strict=True)
            set_ticks(heights, texts)
        axes.set(xlim=(-0.07, 1.07), ylim=(-0.07, 1.07), xlabel="λ1", ylabel="λ2")
        _bar(figure, axes, norm)

    best = min(shown, key=lambda trial: trial.score or math.inf)
    text = f"{len(shown)} trials with {norm_name}; the best scored {best.score:.4f}. Blue is better."
    arm = space.norm.index(norm_name) if len(space.norm) > 1 else None
    return Panel(f"penalties-{norm_name}", f"Penalties with {norm_name}", text, (WIDTH, 3.4), draw, arm=arm)


def bars(importance: dict[str, float]) -> Panel:
    """How much of the variation between trials each setting accounts for."""
    names = sorted(importance, key=lambda name: importance[name])

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.barh(
            [LABELS.get(name, name) for name in names],
            [importance[name] for name in names],
            color=PALETTE["blue"],
            height=0.6,
        )
        axes.set(xlim=(0, 1), xlabel="share of importance")
        told = [f"{LABELS.get(name, name)}: {importance[name]:.3f}" for name in names]
        say(axes, [(importance[name], place) for place, name in enumerate(names)], told)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)

    listed = ", ".join(f"{LABELS.get(name, name)} {importance[name]:.2f}" for name in reversed(names))
    return Panel("importance", "Importance", f"{listed}.", (WIDTH, 0.9 + 0.42 * len(names)), draw)


def _shades(trials: Sequence[Trial]) -> tuple[dict[str, float], Normalize]:
    """Colours go by log score, and end at the third quartile: bad trials are many times worse than good ones."""
    shades = {trial.trial_id: math.log(max(trial.score or 0.0, 1e-9)) for trial in trials}
    values = list(shades.values())
    low, high = min(values), float(np.quantile(values, 0.75))
    return shades, Normalize(low, max(high, low + 1e-6), clip=True)


def _bar(figure: FigureBase, axes: Axes, norm: Normalize) -> None:
    ticks = np.linspace(norm.vmin or 0.0, norm.vmax or 0.0, 4)
    bar = figure.colorbar(ScalarMappable(norm, _HEAT), ax=axes, ticks=ticks, pad=0.02, fraction=0.05)
    bar.ax.set_yticklabels([f"{math.exp(tick):.3f}" for tick in ticks[:-1]] + [f"≥ {math.exp(ticks[-1]):.3f}"])
    bar.outline.set_visible(False)


def _height(space: Space, name: str, value: Any) -> float:
    """Returns where a value lies on its axis from 0 to 1; `off` at 0, beneath the range."""
    found = getattr(space, name)
    if isinstance(found, Range):
        if not value:
            return 0.0
        share = math.log(value / found.low) / math.log(found.high / found.low)
        return 0.14 + 0.86 * share if name in ("l1", "l2") else share
    if value not in found:  # groups of another norm than gn
        return -0.06
    return found.index(value) / max(len(found) - 1, 1)


def _ticks(space: Space, name: str) -> list[tuple[float, str]]:
    found = getattr(space, name)
    if isinstance(found, Range):
        values = [0.0, *found.grid()] if name in ("l1", "l2") else found.grid()
        return [(_height(space, name, value), concise(value, 2) if value else "off") for value in values]
    return [(_height(space, name, value), str(value)) for value in found]

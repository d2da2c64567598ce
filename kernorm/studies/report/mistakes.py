"""The test images that runs of a study got wrong: which, in how many runs, and their pictures.

Between the study's arms and its report. To show a picture is to look at the test split once more; the report counts it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load_test_split
from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.reporting.figures import PALETTE, Panel, plain
from kernorm.reporting.format import name_of
from kernorm.reporting.mistakes import drawn_order
from kernorm.reporting.page import mistakes_as_uris, picture
from kernorm.studies.described import hard
from kernorm.studies.judged import collapsed_runs
from kernorm.studies.report.arms import Arm
from kernorm.studies.summary import HardImage

# Images in the grid of all arms and in an arm's own, and arms that have one of their own.
ACROSS, OWN, GRIDS = 25, 10, 12


@dataclass(frozen=True)
class Grid:
    """Images that the most runs got wrong, of one arm or of all arms on one data set (`arm` empty).

    `every` counts how many were wrong in at least one run. `pictures` are the images by index, empty where the data set
    is not available, or where they are `hidden`. Collapsed runs, which get most images wrong, are `left_out` of the
    grid of all arms, unless no other run got an image wrong. Of images that are wrong as often, those that a hash draws
    come first, class by class.
    """

    arm: str
    dataset: str
    data: Data
    shown: tuple[HardImage, ...]
    every: tuple[HardImage, ...]
    runs: int
    pictures: dict[int, NDArray[np.uint8]]
    hidden: bool = False
    left_out: int = 0

    @property
    def uris(self) -> list[str]:
        """The images as data: addresses."""
        return mistakes_as_uris(self.pictures[image.index] for image in self.shown) if self.pictures else []

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.data.labels

    def label(self, number: int) -> str:
        """Returns the name of a class."""
        return name_of(number, self.labels)

    def panel(self) -> Panel:
        """Returns the same as a chart."""
        title = self.arm or f"Wrong in the most of {self.runs} runs"
        return misclassified(title, f"misclassified-{self.arm}", self.shown, self.pictures, self.data)

    def wrong_in(self) -> list[tuple[str, int]]:
        """Counts the images by how many runs got them wrong."""
        counts = Counter(image.wrong for image in self.every)
        least = {
            "every run": self.runs,
            "at least three in four runs": 0.75 * self.runs,
            "at least half of the runs": 0.5 * self.runs,
            "at least one run": 1,
        }
        found = [(words, sum(many for wrong, many in counts.items() if wrong >= low)) for words, low in least.items()]
        return [*found, ("exactly one run", counts[1])]


def grids_of(arms: Sequence[Arm]) -> list[Grid]:
    """Returns the grids of all arms, by data set, and then of each arm."""
    by_dataset: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.summary.hard:
            by_dataset.setdefault(arm.summary.config.dataset, []).append(arm)
    grids = []
    for dataset, group in by_dataset.items():
        data = next(iter(group[0].records.values())).data
        everywhere = _drawn(_across(group))
        chosen = [("", everywhere, everywhere[:ACROSS])] if len(group) > 1 else []
        for arm in group[:GRIDS]:
            mine = _drawn(arm.summary.hard)
            chosen.append((arm.name, mine, mine[:OWN]))
        hidden = not _shows_pictures(group)
        wanted = [] if hidden else [image for _, _, shown in chosen for image in shown]
        pictures = _pictures(group[0].summary.config, data, wanted)
        for name, every, shown in chosen:
            of_these = {image.index: pictures[image.index] for image in shown if image.index in pictures}
            runs = every[0].runs
            left_out = 0 if name else sum(len(arm.records) for arm in group) - runs
            grids.append(Grid(name, dataset, data, shown, every, runs, of_these, hidden, left_out))
    return sorted(grids, key=lambda grid: bool(grid.arm))


def _shows_pictures(arms: Sequence[Arm]) -> bool:
    """Tells whether all arms and their runs allow pictures on pages."""
    return all(arm.summary.config.pictures and all(one.config.pictures for one in arm.records.values()) for arm in arms)


def _drawn(images: Sequence[HardImage]) -> tuple[HardImage, ...]:
    """Sorts images by how often they are wrong; equal ones in an order drawn by hash, class by class."""
    order = drawn_order([image.index for image in images], [image.target for image in images])
    return tuple(sorted((images[place] for place in order), key=lambda image: -image.wrong))


def _across(arms: Sequence[Arm]) -> tuple[HardImage, ...]:
    """Lists the images that runs of any arm got wrong; without collapsed runs, if the others got one wrong."""
    fair = [run for arm in arms for seed, run in arm.records.items() if seed not in collapsed_runs(arm.results)]
    return hard(fair) or hard([run for arm in arms for run in arm.records.values()])


def _pictures(config: TrainConfig, data: Data, images: Sequence[HardImage]) -> dict[int, NDArray[np.uint8]]:
    """Returns the test images by index; none where the data set cannot be had here, or has other images by now."""
    if not images:
        return {}
    try:
        sealed = load_test_split(
            replace(data, name=config.dataset), manual_dir=config.manual_dir, data_dir=config.data_dir
        )
    except UsageError:
        return {}
    test = sealed.open(purpose="pictures for the report of a study", epoch=0)
    return {image.index: test.images[image.index] for image in images}


def misclassified(
    title: str, name: str, shown: Sequence[HardImage], images: Mapping[int, NDArray[np.uint8]], data: Data
) -> Panel:
    """Images that most runs got wrong: target → most frequent prediction, and in how many of how many runs."""
    columns = 5
    rows = max(1, -(-len(shown) // columns))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for place, image in enumerate(shown):
            left, top = 1.15 * (place % columns), 1.45 * (place // columns)
            axes.imshow(
                picture(images[image.index]),
                cmap="gray_r" if data.strokes else "gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                extent=(left, left + 1, top + 1, top),
            )
            axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=PALETTE["line"], linewidth=0.6))
            words = f"{name_of(image.target, data.labels)} → {name_of(image.prediction, data.labels)}"
            axes.text(
                left + 0.5,
                top + 1.04,
                f"{plain(words)}\n{image.wrong} of {image.runs}",
                ha="center",
                va="top",
                fontsize=8,
            )
        axes.set(xlim=(-0.05, 1.15 * columns - 0.1), ylim=(1.45 * rows - 0.03, -0.03), aspect="equal")
        axes.set_axis_off()

    words = f"{len(shown)} images with target → most frequent prediction."
    return Panel(name, title, words, (5.7, 1.45 * rows), draw)

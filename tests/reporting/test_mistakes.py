from collections import Counter
from dataclasses import replace

import numpy as np

from kernorm.records.record import SHOWN, Mistake
from kernorm.reporting.mistakes import drawn_mistakes, drawn_order
from tests.builders import make_evaluation


def evaluation(counts):
    """An evaluation with so many mistakes of each class, which stand class by class, as folders of images do."""
    targets = np.repeat(np.arange(len(counts)), counts)
    mistakes = tuple(
        Mistake(index=3 * place, target=int(target), prediction=0, confidence=0.5)
        for place, target in enumerate(targets)
    )
    return replace(make_evaluation(), mistakes=mistakes, errors=len(mistakes))


def test_every_class_has_its_share_of_the_pictures():
    drawn = drawn_mistakes(evaluation((200, 100, 50, 2, 1)))
    assert len(drawn) == SHOWN
    counts = Counter(mistake.target for mistake in drawn)
    # By their shares of 25: 14.2, 7.1, 3.5, 0.1 and 0.1; the rarest have one.
    assert [counts[label] for label in range(5)] in ([13, 7, 3, 1, 1], [14, 6, 3, 1, 1], [13, 6, 4, 1, 1])
    assert [mistake.target for mistake in drawn] == sorted(mistake.target for mistake in drawn)
    # They are no longer the first ones, and the same each time.
    assert [mistake.index for mistake in drawn if mistake.target == 0] != [3 * place for place in range(counts[0])]
    assert drawn_mistakes(evaluation((200, 100, 50, 2, 1))) == drawn


def test_few_mistakes_are_all_shown_and_more_classes_than_places_are_drawn():
    few = evaluation((3, 0, 1))
    assert drawn_mistakes(few) == list(few.mistakes)
    assert drawn_mistakes(evaluation(())) == drawn_mistakes(None) == []
    many = drawn_mistakes(evaluation((4,) * 60))
    assert len({mistake.target for mistake in many}) == SHOWN


def test_a_draw_depends_on_the_image_and_not_on_its_neighbours():
    """Removing images of other classes leaves the order within a class."""
    order = [7, 100, 33, 5, 8, 61]
    found = [order[place] for place in drawn_order(order, [0] * 6)]
    mixed = drawn_order([*order, 200, 300], [0] * 6 + [1] * 2)
    assert [order[place] for place in mixed if place < 6] == found
    assert sorted(found) == sorted(order)

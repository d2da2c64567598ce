"""What the report of a study says of learning rates that were found for its arms."""

from collections.abc import Iterator

from kernorm.reporting.notices import Notice
from kernorm.studies.definition import Study


def rate_notices(study: Study) -> Iterator[Notice]:
    """Says how rates were found, and which may lie outside of what was tried."""
    if study.rates is None:
        return
    text = f"Before the first run, with the test split sealed, {study.rates.sentence}."
    yield Notice("good", "Each arm has a learning rate of its own", text)
    if ends := study.rates.at_an_end():
        names = ", ".join(f"`{arm}`" for arm in ends)
        text = f"The best of {names} is the lowest or the highest that was tried. A wider range may hold a better one."
        yield Notice("warning", "A learning rate at the end of its range", text)

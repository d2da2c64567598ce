"""What a publication states of the arms of a study: rows of its table, and conclusions."""

from dataclasses import dataclass

from kernorm.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a published table, in its own convention.

    Attributes:
        accuracy: in percent, as selected there.
        l1: λ1 as stated.
        weight_decay: as stated, PyTorch's: the derivative of weight_decay/2·w², so twice the λ2 of
            `keras.regularizers.L1L2`.
        source: where it stands.
    """

    accuracy: float
    l1: float = 0.0
    weight_decay: float = 0.0
    source: str = ""

    @property
    def l2(self) -> float:
        """The λ2 of Keras' convention."""
        return self.weight_decay / 2


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a publication concludes of an arm, in a form that runs can answer.

    Attributes:
        text: in its own words.
        arm: that it speaks of.
        better_than: arms that `arm` is said to be better than, all of them.
        worse_than: arms that it is said to be worse than.
        reaches: the accuracy in percent that it is said to reach, selected as there.
        no_arm_for: what else `arm` is compared with in the publication, and the study has no arm for. Its runs can then
            refuse the statement, and cannot confirm it.
        note: what the publication left out.
    """

    text: str
    arm: str
    better_than: tuple[str, ...] = ()
    worse_than: tuple[str, ...] = ()
    reaches: float | None = None
    no_arm_for: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuses a statement of nothing, and one of two things."""
        if sum((bool(self.better_than), bool(self.worse_than), self.reaches is not None)) != 1:
            raise UsageError(
                "A Statement has one of better_than, worse_than and reaches.",
                f"{self.text!r} with {'none' if not (self.better_than or self.worse_than) else 'several'}",
                'Write for example Statement(text="…", arm="l2", better_than=("none",)).',
            )

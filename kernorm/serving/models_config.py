"""What models.config makes a server do with one model: the versions it loads, and the labels of its clients.

TF Serving checks the labels of a file before it changes what is loaded: one label on a version that is not loaded at
that moment, and the whole file is refused. It answers requests without a version with the highest version it has
loaded. A line of comment keeps what the file itself cannot say.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

_NOTE = "# kernorm.push: "
_HEAD = "# Written by python -m kernorm.push, which keeps the next line to know what it did.\n"

# By model: whether it follows the newest version, its base version, and since when versions are listed.
Notes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """What a server does with a model.

    Attributes:
        follows: whether a newly pushed version is served.
        base: the version for requests without one, unless a higher one is listed for its label; None without any.
        listed: the versions that are loaded.
        labels: version by label.
        pending: the same of labels that are not written yet, since a server has to load the version first.
        everything: whether somebody has written by hand that all versions are loaded.
        since: when a version was listed, in unix seconds, where that is known.
    """

    follows: bool = True
    base: int | None = None
    listed: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    everything: bool = False
    since: Mapping[int, float] = field(default_factory=dict)

    @property
    def top(self) -> int | None:
        """The version that requests without one reach: the highest that is loaded."""
        return max(self.listed, default=None)

    @property
    def refused(self) -> dict[str, int]:
        """Labels on versions that are not loaded; a server that runs refuses the file for them."""
        return {name: number for name, number in self.labels.items() if number not in self.listed}

    def named(self, number: int) -> list[str]:
        """Returns the labels of a version."""
        return [name for name, of in self.labels.items() if of == number]

    def labels_above(self, number: int) -> list[str]:
        """Returns the labels on loaded versions above one."""
        return [name for name, of in self.labels.items() if of > number and of in self.listed]

    def overlooked(self, known: Iterable[int]) -> list[int]:
        """Returns versions that a push published and that nothing serves, since it was killed before it said so."""
        return [number for number in known if self.follows and self.base is not None and number > self.base]

    def published(self, number: int) -> "Served":
        """Serves a new version, if the newest one is followed, instead of the one before."""
        return self._based(number) if self.follows else self

    def pinned(self, number: int, follows: bool) -> "Served":
        """Serves exactly this version to requests without one: higher ones are unloaded, and lose their labels."""
        labels = {name: of for name, of in self.labels.items() if of <= number and of in self.listed}
        listed = frozenset({number, *labels.values()})
        return replace(self, follows=follows, base=number, labels=labels, listed=listed, pending={}, everything=False)

    def rolled_back(self, number: int) -> "Served":
        """Serves exactly a lower version, as `pinned`; it takes the labels of higher ones, so it must be loaded."""
        moved = dict.fromkeys(self.labels_above(number), number)
        return replace(self, labels={**self.labels, **moved}).pinned(number, follows=False)

    def loading(self, number: int, names: Collection[str]) -> "Served":
        """Loads a version too, so that it can have labels later."""
        wanted = self._with(self.labels, {**self.pending, **dict.fromkeys(names, number)})
        return replace(wanted, listed=wanted.listed | {number})

    def labelled(self, name: str, number: int) -> "Served":
        """Moves a label to a version that is loaded."""
        return self._with({**self.labels, name: number}, _without(self.pending, (name,)))

    def unlabelled(self, name: str) -> "Served":
        """Takes a label away, also one that is not written yet; its version is unloaded, if nothing else needs it."""
        return self._with(_without(self.labels, (name,)), _without(self.pending, (name,)))

    def not_loading(self, names: Collection[str]) -> "Served":
        """Takes `loading` back."""
        return self._with(self.labels, _without(self.pending, names))

    def labelled_within(self, loaded: Collection[int]) -> "Served":
        """Takes away the labels on versions that are not loaded yet: a server would refuse the file for one."""
        return replace(self, labels={name: of for name, of in self.labels.items() if of in loaded})

    def _based(self, number: int) -> "Served":
        gone = {self.base} - {*self.labels.values(), *self.pending.values()}
        return replace(self, base=number, listed=frozenset(self.listed - gone) | {number})

    def _with(self, labels: Mapping[str, int], pending: Mapping[str, int]) -> "Served":
        """Changes the labels; a version that was loaded for them alone is unloaded."""
        gone = {*self.labels.values(), *self.pending.values()} - {self.base, *labels.values(), *pending.values()}
        listed = self.listed if self.everything else self.listed - gone
        return replace(self, labels=labels, pending=pending, listed=listed)


def _without(labels: Mapping[str, int], names: Collection[str]) -> dict[str, int]:
    return {name: of for name, of in labels.items() if name not in names}


def read_served(entry: "ModelConfig | None", note: Mapping[str, Any], known: Iterable[int]) -> Served:
    """Reads what a server does with a model.

    Args:
        entry: the model's part of models.config; None: there is none, as before the first push.
        note: what push wrote about it; empty for a file that was written by hand.
        known: the published versions, rising.
    """
    there = list(known)
    if entry is None:
        return Served(base=max(there, default=None), listed=frozenset(there[-1:]))
    policy, labels = entry.model_version_policy, dict(entry.version_labels)
    if policy.HasField("specific"):
        listed = frozenset(number for number in policy.specific.versions if number in there)
    elif policy.HasField("all"):
        listed = frozenset(there)
    else:
        listed = frozenset(there[-(policy.latest.num_versions or 1) :])
    follows, base = not policy.HasField("specific"), max(listed, default=None)
    if not follows and note.get("base") in listed:
        follows, base = bool(note.get("follows")), note["base"]
    elif not follows:
        base = max(listed - set(labels.values()), default=base)
    since = {number: note["since"][str(number)] for number in listed if str(number) in note.get("since", {})}
    pending = {name: number for name, number in note.get("pending", {}).items() if number in listed}
    return Served(follows, base, listed, labels, pending, policy.HasField("all"), since)


def takes_new_versions(entry: "ModelConfig") -> bool:
    """Says whether somebody has written a policy by hand under which a server keeps several versions by itself."""
    policy = entry.model_version_policy
    return policy.HasField("all") or (policy.latest.num_versions > 1 and not entry.version_labels)


def write_served(served: Served, entry: "ModelConfig", now: float) -> dict[str, Any]:
    """Writes into the model's part of models.config what a server is to do; returns the note that goes with it.

    With a label, versions are listed one by one: a server that takes the newest unloads the labelled one by itself.
    """
    entry.ClearField("model_version_policy")
    entry.ClearField("version_labels")
    if served.everything:
        entry.model_version_policy.all.SetInParent()
    elif not served.follows or served.labels or served.listed - {served.base}:
        entry.model_version_policy.specific.versions.extend(sorted(served.listed))
    for name, number in sorted(served.labels.items()):
        entry.version_labels[name] = number
    since = {str(number): served.since.get(number, now) for number in sorted(served.listed)}
    pending = {"pending": dict(served.pending)} if served.pending else {}
    return {"follows": served.follows, "base": served.base, "since": since, **pending}


def read_notes(text: str) -> Notes:
    """Reads what push has written about each model into the comments of models.config; empty where that is damaged."""
    line = next((line for line in text.splitlines() if line.startswith(_NOTE)), _NOTE + "{}")
    try:
        found = json.loads(line.removeprefix(_NOTE))
    except ValueError:
        return {}
    whole = isinstance(found, dict) and all(
        isinstance(note, dict) and all(isinstance(note.get(part, {}), dict) for part in ("since", "pending"))
        for note in found.values()
    )
    return found if whole else {}


def is_own_comment(line: str) -> bool:
    """Tells whether a line of models.config is a comment that push wrote."""
    return line.startswith(_NOTE) or f"{line}\n" == _HEAD


def format_notes(notes: Notes) -> str:
    """Returns the comments that hold the notes."""
    return f"{_HEAD}{_NOTE}{json.dumps(notes)}\n"


def format_served(served: Served, newest: int | None = None) -> str:
    """Says in a sentence which versions requests reach; `newest` is the highest version there is, if not the base."""
    if served.top is None:
        return "no version is served"
    why = "pinned"
    if served.follows:
        why = "the newest" if newest in (None, served.base) else "not the newest"
    if served.top != served.base:
        why = f"the highest that is loaded; {served.base} ({why}) is reached by its number"
    labels = ", ".join([f"{name} is {number}" for name, number in sorted(served.labels.items())])
    name = " ".join([str(served.top), *(f"({label})" for label in served.named(served.top))])
    return f"requests without a version go to {name}, {why}" + (f"; labels: {labels}" if labels else "")

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
        since: when a version was listed, in unix seconds, where that is known.
    """

    follows: bool = True
    base: int | None = None
    listed: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)
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

    def published(self, number: int) -> "Served":
        """Serves a new version, if the newest one is followed, instead of the one before."""
        return self._based(number) if self.follows else self

    def pinned(self, number: int, follows: bool) -> "Served":
        """Serves exactly this version to requests without one: higher ones are unloaded, and lose their labels."""
        labels = {name: of for name, of in self.labels.items() if of <= number and of in self.listed}
        return replace(self, follows=follows, base=number, labels=labels, listed=frozenset({number, *labels.values()}))

    def loading(self, number: int) -> "Served":
        """Loads a version too, so that it can be labelled later."""
        return replace(self, listed=self.listed | {number})

    def labelled(self, name: str, number: int) -> "Served":
        """Moves a label to a version that is loaded."""
        return self.unlabelled(name, keep=number)._with({**self.labels, name: number})

    def unlabelled(self, name: str, keep: int | None = None) -> "Served":
        """Takes a label away; its version is unloaded, if nothing else needs it."""
        labels = {other: of for other, of in self.labels.items() if other != name}
        needed = {self.base, keep, *labels.values()}
        gone = {self.labels[name]} - needed if name in self.labels else set()
        return replace(self, labels=labels, listed=self.listed - gone)

    def labelled_within(self, loaded: Collection[int]) -> "Served":
        """Takes away the labels on versions that are not loaded yet: a server would refuse the file for one."""
        return self._with({name: of for name, of in self.labels.items() if of in loaded})

    def _based(self, number: int) -> "Served":
        gone = {self.base} - set(self.labels.values())
        return replace(self, base=number, listed=frozenset(self.listed - gone) | {number})

    def _with(self, labels: Mapping[str, int]) -> "Served":
        return replace(self, labels=labels)


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
    return Served(follows, base, listed, labels, since)


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
    if not served.follows or served.labels or served.listed - {served.base}:
        entry.model_version_policy.specific.versions.extend(sorted(served.listed))
    for name, number in sorted(served.labels.items()):
        entry.version_labels[name] = number
    since = {str(number): served.since.get(number, now) for number in sorted(served.listed)}
    return {"follows": served.follows, "base": served.base, "since": since}


def read_notes(text: str) -> Notes:
    """Reads what push has written about each model into the comments of models.config; empty where that is damaged."""
    line = next((line for line in text.splitlines() if line.startswith(_NOTE)), _NOTE + "{}")
    try:
        found = json.loads(line.removeprefix(_NOTE))
    except ValueError:
        return {}
    whole = isinstance(found, dict) and all(
        isinstance(note, dict) and isinstance(note.get("since", {}), dict) for note in found.values()
    )
    return found if whole else {}


def format_notes(notes: Notes) -> str:
    """Returns the comments that hold the notes."""
    return f"{_HEAD}{_NOTE}{json.dumps(notes)}\n"


def format_served(served: Served) -> str:
    """Says in a sentence which versions requests reach."""
    if served.top is None:
        return "no version is served"
    why = "the newest" if served.follows else "pinned"
    if served.top != served.base:
        why = f"the highest that is loaded; {served.base} ({why}) is reached by its number"
    labels = ", ".join([f"{name} is {number}" for name, number in sorted(served.labels.items())])
    name = " ".join([str(served.top), *(f"({label})" for label in served.named(served.top))])
    return f"requests without a version go to {name}, {why}" + (f"; labels: {labels}" if labels else "")

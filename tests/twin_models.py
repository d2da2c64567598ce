"""Which versions and labels the twin of TF Serving serves: models.config, policies, labels, as its ServerCore does.

As read in tensorflow/serving 2.20, model_servers/server_core.cc: labels are checked before models change, against what
is loaded at that moment; a config with one wrong label is refused whole, and the old one stays.
"""

import functools
import hashlib
from pathlib import Path

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig


class Failed(Exception):
    """What the server answers instead: the name of a gRPC status, and a message."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Loaded:
    """A SavedModel in memory."""

    def __init__(self, path):
        self.loaded = tf.saved_model.load(path)
        saved = SavedModel.FromString((Path(path) / "saved_model.pb").read_bytes())
        self.signatures = saved.meta_graphs[0].signature_def

    def run(self, name, values):
        """Runs a signature of one input; returns its outputs."""
        if name not in self.signatures:
            raise Failed("FAILED_PRECONDITION", f'Serving signature name: "{name}" not found in signature def')
        (key,) = self.signatures[name].inputs
        try:
            answer = self.loaded.signatures[name](**{key: tf.constant(values)})
        except tf.errors.OpError as error:
            raise Failed("INVALID_ARGUMENT", error.message) from None
        return {key: value.numpy() for key, value in answer.items()}


def load(path):
    """Loads a SavedModel; one with the same files is loaded once in this process."""
    if not (path / "saved_model.pb").is_file():
        raise Failed("NOT_FOUND", f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}")
    files = sorted((path / "variables").iterdir())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (path / "saved_model.pb", *files))).hexdigest()
    return _load(digest, _Path(path))


class _Path(str):
    """A path that does not count when two calls are compared."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


@functools.lru_cache(4)
def _load(digest, path):
    return Loaded(str(path))


class Models:
    """The versions of one model.

    Args:
        config: the file models.config; None: `entry` as it is.
        entry: what to serve without such a file.
        root: the folder that the config calls /models.
        allow: --allow_version_labels_for_unavailable_models.

    Raises:
        Failed: the server does not start.
    """

    def __init__(self, *, config=None, entry=None, root=None, allow=False):
        self.config, self.root, self.allow = config, root, allow
        self.entry, self.versions, self.labels, self.errors = entry or ModelConfig(), {}, {}, {}
        self.log = []
        if config:
            self._reload()
        self.scan()

    def poll(self):
        """Reads the config again, as the server does every few seconds, and looks at the folder."""
        try:
            self._reload()
        except Failed as error:
            self.log.append(f"Model config reload failed: {error}")
        self.scan()

    def scan(self):
        """Loads and unloads what the policy asks for, as the server does every second."""
        base = Path(self.entry.base_path.replace("/models", str(self.root), 1) if self.root else self.entry.base_path)
        paths = {int(path.name): path for path in base.iterdir() if _is_version(path.name)}
        there = sorted(paths)
        policy = self.entry.model_version_policy
        if policy.HasField("specific"):
            wanted = [number for number in there if number in policy.specific.versions]
        elif policy.HasField("all"):
            wanted = there
        else:
            wanted = there[-(policy.latest.num_versions or 1) :]
        for number in wanted:
            if number not in self.versions:
                try:
                    self.versions[number] = load(paths[number])
                    self.errors.pop(number, None)
                except Failed as error:
                    self.errors[number] = error
        for number in set(self.versions) - set(wanted):
            del self.versions[number]

    def resolve(self, name, version=None, label=None):
        """Returns the number of the version that a request reaches."""
        if name != self.entry.name:
            raise Failed("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if label:
            if label not in self.labels:
                raise Failed("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        if version and version not in self.versions:
            raise Failed("NOT_FOUND", f"Servable not found for request: Specific({name}, {version})")
        if not self.versions:
            raise Failed("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return version or max(self.versions)

    def state(self, name, version):
        """Returns a version's state and error message, as GetModelStatus does."""
        if name == self.entry.name and version in self.versions:
            return "AVAILABLE", ""
        if name == self.entry.name and version in self.errors:
            return "END", self.errors[version].message
        raise Failed("NOT_FOUND", f"Could not find version {version} of model {name}")

    def _reload(self):
        config = text_format.Parse(Path(self.config).read_text(), ModelServerConfig())
        (entry,) = config.model_config_list.config
        for label, version in entry.version_labels.items():
            moved = self.labels.get(label, version) != version
            if version not in self.versions and (moved or not self.allow):
                raise Failed(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {version} of model {entry.name}, which is not currently "
                    "available for inference",
                )
        self.entry, self.labels = entry, dict(entry.version_labels)


def _is_version(name):
    """Says whether absl::SimpleAtoi takes a name for an int64."""
    return name.isascii() and name.isdecimal() and int(name) < 2**63

from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings, expanded, is_number, whole_number
from kernorm.parallel.settings import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    colour: Literal["red", "blue"] = "red"
    rate: Annotated[float | Literal["auto"], Limit(0, 1, "from 0 to 1")] = 0.5
    most_steps: Annotated[int | None, Limit(1, 9, "from 1 to 9")] = None
    folder: Path | None = None
    loud: bool = False
    names: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    text: str = ""
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self):
        check_settings(self)


def test_settings_are_brought_into_form():
    found = Settings(rate=1, folder="a/b")
    assert (type(found.rate), found.folder) == (float, Path("a/b"))
    assert Settings(rate="auto").rate == "auto"
    assert Settings(most_steps=9).most_steps == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "rde"}, r"--colour takes a known name\. Received: 'rde'\. Did you mean 'red'\? Known: red, blue\."),
        ({"rate": 1.5}, r"--rate must be from 0 to 1\. Received: rate=1\.5\. Give a value in that range\."),
        ({"rate": "fast"}, r"--rate must be from 0 to 1\. Received: rate='fast' \(str\)\."),
        ({"rate": 10**400}, r"--rate must be from 0 to 1\. Received: rate=inf\."),
        ({"rate": None}, r"--rate must be from 0 to 1\. Received: rate=None \(NoneType\)\."),
        ({"rate": np.zeros(2)}, r"--rate must be from 0 to 1\. Received: rate=array\(\[0\., 0\.\]\) \(ndarray\)\."),
        ({"rate": float("nan")}, r"--rate must be from 0 to 1\. Received: rate=nan\."),
        ({"rate": True}, r"--rate must be from 0 to 1\. Received: rate=True \(bool\)\."),
        ({"most_steps": 10}, r"--most-steps must be from 1 to 9\. Received: most_steps=10\."),
        ({"most_steps": 10**400}, r"--most-steps must be from 1 to 9\. Received: most_steps=10000"),
        ({"most_steps": 2.5}, r"--most-steps must be a whole number, from 1 to 9\. Received: .*=2\.5 \(float\)\."),
        ({"most_steps": 2.0}, r"must be a whole number, from 1 to 9\. Received: most_steps=2\.0 \(float\)\."),
        ({"most_steps": np.float64(2)}, r"must be a whole number, .* \(float64\)\."),
        ({"most_steps": True}, r"must be a whole number, .* Received: most_steps=True \(bool\)\."),
        ({"loud": "no"}, r"--loud must be True or False\. Received: loud='no' \(str\)\. Give one\."),
        ({"loud": 1}, r"--loud must be True or False\. Received: loud=1 \(int\)\."),
        ({"folder": 3}, r"--folder must be a path\. Received: folder=3 \(int\)\."),
        ({"folder": b"a"}, r"--folder must be a path\. Received: folder=b'a' \(bytes\)\."),
        ({"folder": "~nobody-of-that-name/a"}, r"that begins with ~ needs a home folder\. Received: '~nobody-of-that"),
        (
            {"folder": "s3://bucket/models"},
            r"A path is one of this machine\. Received: s3://bucket/models\. Give a local folder and copy it there\.",
        ),
        ({"folder": Path("s3://bucket/models")}, r"Received: s3://bucket/models\."),
        ({"files": ["file:///models"]}, r"Received: file:///models\."),
        ({"files": [Path("file:///models")]}, r"Received: file://models\."),
        ({"names": "ab"}, r"--names takes a list\. Received: names='ab' \(str\)\. Give a list or a tuple\."),
        ({"names": [1]}, r"--names must be text\. Received: names=1 \(int\)\."),
        ({"text": 1e-4}, r"--text must be text\. Received: text=0\.0001 \(float\)\."),
        ({"colour": None}, r"--colour takes a known name\. Received: None\."),
        ({"engine": "ray"}, r"--engine must be of its type\. Received: engine='ray' \(str\)\."),
    ],
)
def test_what_is_outside_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        Settings(**values)


def test_values_of_numpy_become_plain_ones():
    given = {"rate": np.float32(0.5), "most_steps": np.int64(3), "loud": np.True_, "colour": np.str_("blue")}
    found = Settings(**given, folder=np.str_("a"), names=[np.str_("x")])
    plain = Settings(rate=0.5, most_steps=3, loud=True, colour="blue", folder=Path("a"), names=("x",))
    assert found == plain
    for one in fields(Settings):
        assert type(getattr(found, one.name)) is type(getattr(plain, one.name))
    assert type(found.names[0]) is str
    assert Settings(rate=Fraction(1, 4)).rate == 0.25
    assert Settings(rate=np.array(1)).rate == 1.0


def test_a_home_folder_is_expanded_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = Settings(folder="~/a", files=["~/b", Path("~")], text="~/c")
    assert (found.folder, found.text) == (Path("/home/me/a"), "~/c")
    assert found.files == (Path("/home/me/b"), Path("/home/me"))
    assert expanded("a~/~") == Path("a~/~")


def test_a_colon_alone_makes_no_address():
    for path in ("/data/s3:/models", "a:b/c", "photos:1"):
        assert expanded(path) == expanded(Path(path)) == Path(path)


def test_a_path_in_a_folder_that_is_named_like_an_address_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="A path is one of this machine"):
        expanded(Path("s3:/models"))
    (tmp_path / "s3:").mkdir()
    assert expanded(Path("s3:/models")) == Path("s3:/models")
    with pytest.raises(UsageError, match="A path is one of this machine"):
        expanded("s3://models")


def test_whole_numbers():
    values = (3, np.int16(3), 3.0, True, "3", None)
    assert [whole_number(value) for value in values] == [3, 3, None, None, None, None]
    assert type(whole_number(np.int16(3))) is int


def test_numbers():
    assert [is_number(value) for value in (1, 0.5, True, "1", float("inf"), None)] == [True, True, *[False] * 4]

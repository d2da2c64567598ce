"""The public names of kernorm and tuner, and what importing them costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kernorm
import tuner

ROOT = Path(kernorm.__file__).parents[1]


def told(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_importing_it_loads_nothing_heavy():
    heavy = "{'keras', 'numpy', 'pandas', 'pydantic', 'tensorflow', 'tyro'}"
    assert told(f"import sys, kernorm, tuner; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_settings_and_errors_need_neither_keras_nor_numpy():
    code = "import sys; from kernorm import TrainConfig, UsageError, recipe; recipe('best'); TrainConfig(norm='ln')"
    assert told(f"{code}; print(sorted({{'keras', 'numpy', 'tensorflow'}} & set(sys.modules)))") == "[]\n"


@pytest.mark.parametrize("package", [kernorm, tuner])
def test_every_public_name_loads_and_stands_under_type_checking(package):
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    named = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(named) == package.__all__ == dir(package)
    for name, module in named.items():
        assert getattr(package, name).__name__ == name
        assert module == package._MODULE_OF[name]


def test_another_name_is_refused_with_the_public_ones():
    with pytest.raises(AttributeError, match=r"^module 'kernorm' has no attribute 'trian_model'; public are: Compared"):
        kernorm.trian_model  # noqa: B018


def test_nothing_inside_imports_the_root_package():
    for path in [*(ROOT / "kernorm").rglob("*.py"), *(ROOT / "tuner").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("kernorm", "tuner") or all(
                    (ROOT / node.module / alias.name).exists() or (ROOT / node.module / f"{alias.name}.py").exists()
                    for alias in node.names
                ), path


def test_the_test_split_comes_out_through_open_alone():
    """Nothing outside the data sets' own package touches its arrays."""
    for path in [*(ROOT / "kernorm").rglob("*.py"), *(ROOT / "tuner").rglob("*.py")]:
        if path.parent.name != "datasets":
            assert not [
                node.attr
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and node.attr == "test_images"
            ], path


def test_the_old_place_of_published_still_works():
    with pytest.warns(FutureWarning, match="from kernorm import Published"):
        from kernorm.plan import Published
    row = Published(accuracy=99.43, l2=0.0066)
    assert row == kernorm.Published(accuracy=99.43, weight_decay=0.0066)
    assert row.l2 == 0.0033

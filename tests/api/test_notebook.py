"""The short tour as a notebook: executed as a reader would, and what is committed of it."""

import json
import re
import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "reports" / "examples" / "quickstart.ipynb"

TRAIN = """
import keras

import kernorm

run = kernorm.train_model(net="eva6", dataset="boxes", validation_size=32, batch_size=40, epochs={epochs}, export=False)
run.record.history[-1].epoch, run.status
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Makes a notebook's client whose kernel works in a folder of its own."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nbclient's own, of asyncio and platformdirs
        nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    folder = tmp_path / "here"
    folder.mkdir()

    def made(cells):
        notebook = nbformat.reads(cells, 4) if isinstance(cells, str) else nbformat.v4.new_notebook(cells=cells)
        places = {"metadata": {"path": str(folder)}}
        return nbclient.NotebookClient(notebook, timeout=None, resources=places, record_timing=False)

    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client's sockets
def test_the_tour_runs_from_its_first_cell_to_its_last(client, mnist_of_the_tour):
    told = client(NOTEBOOK.read_text()).execute()
    cells = [cell for cell in told.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells)
    shown = [output for cell in cells for output in cell.outputs if output.output_type == "execute_result"]
    assert sum("<svg" in output.data.get("text/html", "") for output in shown) == 3
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_keras_may_be_there_first_and_an_interrupted_cell_is_run_again(client, boxes_cache, tmp_path):
    from nbformat.v4 import new_code_cell

    stop = "import signal\nfrom kernorm.training.callbacks import RunLog\nend = RunLog.on_epoch_end\n" + (
        "def once(self, epoch, logs=None):\n    end(self, epoch, logs)\n    RunLog.on_epoch_end = end\n"
        "    signal.raise_signal(signal.SIGINT)\nRunLog.on_epoch_end = once\n"
    )
    caught = "\n".join(f"    {line}" for line in TRAIN.format(epochs=3).strip().splitlines())
    cells = [
        new_code_cell(f"import keras\n{stop}"),
        new_code_cell(f"try:\n{caught}\nexcept KeyboardInterrupt:\n    print('interrupted')"),
        new_code_cell(TRAIN.format(epochs=3)),
    ]
    told = client(cells).execute()
    assert told.cells[1].outputs[-1].text == "interrupted\n"
    assert told.cells[2].outputs[-1].data["text/plain"] == "(3, 'finished')"
    (history,) = (tmp_path / "here" / "reports" / "runs").glob("*/history.csv")
    assert [line.partition(",")[0] for line in history.read_text().splitlines()] == ["epoch", "0", "1", "2", "3"]


def test_what_is_committed_has_its_outputs_and_no_path_of_a_machine():
    text = NOTEBOOK.read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] and not cell["metadata"] for cell in cells)
    assert not re.findall(r"/(?:home|root|tmp|work|opt|usr|Users|content)/", text)
    assert " at 0x" not in text

"""The command that starts TF Serving on the published models, and the files that it names. Used by push."""

import shlex
from pathlib import Path

from kernorm.system.files import make_folder, write_atomically

FOLDER = Path("serving_config")
CONFIG = FOLDER / "models.config"
# Where the command mounts saved_models in the container.
MOUNTED = "/models"
# gRPC's default is 4 threads a core, and a request holds one: 16 clients on two cores see nearly all of them refused.
FLAGS = (
    f"--model_config_file={MOUNTED}/{CONFIG}",
    "--model_config_file_poll_wait_seconds=30",
    "--allow_version_labels_for_unavailable_models",
    "--grpc_max_threads=64",
    f"--monitoring_config_file={MOUNTED}/{FOLDER}/monitoring.config",
)
BATCHING_FLAGS = ("--enable_batching", f"--batching_parameters_file={MOUNTED}/{FOLDER}/batching.config")

FILES = {
    "monitoring.config": f"""# {FLAGS[-1]}
# Metrics for Prometheus at the port of REST.
prometheus_config {{
  enable: true
  path: "/monitoring/prometheus/metrics"
}}
""",
    "batching.config": f"""# {" ".join(BATCHING_FLAGS)}
# Not in the default command, since it costs: requests that arrive together run as one batch, so one bad image fails
# its neighbours' requests too; an empty batch is never answered and holds a thread for good; and a request waits
# up to batch_timeout_micros for others. Worth it only for many small, trusted requests at a time.
# Batches of up to 1,024 images are taken and run in parts of at most 128; num_batch_threads is the number of cores.
max_batch_size {{ value: 1024 }}
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: 128 }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
allowed_batch_sizes: 1
allowed_batch_sizes: 8
allowed_batch_sizes: 32
allowed_batch_sizes: 128
allowed_batch_sizes: 1024
""",
}


def write_server_files(folder: Path) -> None:
    """Writes the files that the command names, but for models.config; those that are there stay as they are.

    Args:
        folder: of all published models.

    Raises:
        UsageError: the folder cannot be made.
    """
    make_folder(folder / FOLDER, "--saved-models-dir")
    for name, text in FILES.items():
        if not (folder / FOLDER / name).exists():
            write_atomically(folder / FOLDER / name, text.encode())


def docker_command(folder: Path) -> str:
    """Returns the command that serves what is published in a folder: REST at port 8501, gRPC at 8500."""
    source = str(folder.absolute())
    mount = ["-v", f"{source}:{MOUNTED}"]
    if ":" in source:
        mount = ["--mount", f"type=bind,source={source},target={MOUNTED}"]
    return " ".join(["docker run -p 8500:8500 -p 8501:8501", shlex.join(mount), "tensorflow/serving", *FLAGS])

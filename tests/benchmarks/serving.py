"""How fast an exported model answers: `python -m tests.benchmarks.serving saved_models/kernorm/<version>`, a minute.

keras.predict, the SavedModel under TensorFlow, OpenVINO and ONNX Runtime, each asked about 1, 32 and 128 images in
turn, so that a slow moment of the machine meets all of them. Writes latency.json beside the model and the table into
its report.
"""

import datetime
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from kernorm.evaluation.evaluator import write_report
from kernorm.evaluation.latency import Latency, Timed, write_latency
from kernorm.saved_model.formats import load_onnx, load_openvino, write_onnx
from kernorm.saved_model.inference import load_saved_model, rebuild
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.warmup import recorded_images

REQUESTS = {1: 500, 32: 200, 128: 100}
WARM_UP = 10


def measure(asks, images):
    rows = []
    for batch, count in REQUESTS.items():
        times = {name: [] for name in asks}
        for turn in range(WARM_UP + count):
            for name, ask in asks.items():
                start = time.perf_counter()
                ask(images[:batch])
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            p50, p99 = np.percentile(taken, (50, 99)) * 1e3
            rows.append(
                Timed(
                    runtime=name,
                    batch=batch,
                    requests=count,
                    p50_ms=round(p50, 4),
                    p99_ms=round(p99, 4),
                    images_per_second=round(batch * count / sum(taken), 1),
                )
            )
            print(
                f"{name:24} batch {batch:3}  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  "
                f"{rows[-1].images_per_second:9.0f} images/s"
            )
    return tuple(rows)


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def main(path):
    verify_integrity(path)
    net = rebuild(path)
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(path, Path(folder) / "model.onnx")
        onnx = load_onnx(Path(folder) / "model.onnx")
    asks = {
        "keras.predict": lambda images: net.predict(images, batch_size=len(images), verbose=0),
        "SavedModel, TensorFlow": load_saved_model(path),
        "OpenVINO": load_openvino(path),
        "ONNX Runtime": onnx,
    }
    latency = Latency(
        rows=measure(asks, recorded_images(path, max(REQUESTS))),
        command="python -m tests.benchmarks.serving",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
    )
    write_latency(latency, path)
    write_report(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

import dataclasses
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.datasets.arrays import Arrays, content_sha256
from kernorm.errors import UsageError
from kernorm.export import ExportConfig, main
from kernorm.nets.model import build_model_for
from kernorm.nets.weights import load_model
from kernorm.records.record import Environment, Export, Opening, Record, read_record, write_record
from kernorm.saved_model import warmup
from kernorm.saved_model.card import FOLDER, read_card
from kernorm.saved_model.export import export_in_subprocess, export_model, export_run
from kernorm.saved_model.formats import convert
from kernorm.saved_model.graph import reachable_ops
from kernorm.saved_model.integrity import tree_sha256
from kernorm.saved_model.signature_check import check_answers
from kernorm.saved_model.versions import versions
from kernorm.serving import runtimes
from kernorm.serving.tfserving import NotServed
from kernorm.stats.scores import evaluate
from kernorm.system import cli

pytestmark = pytest.mark.usefixtures("small_net")

LABELS = tuple("0123456789")
SIGNATURES = ["classify", "serving_default", "serving_png", "serving_tf_examples"]
TINY = TrainConfig(net="eva4", norm="ln", l2=0.0066, dropout=0.05, dataset="tiny", validation_size=30, batch_size=8)


def trained(config, data):
    """A net as after training: no variable at its initial value, and an optimizer that must not be exported."""
    model = build_model_for(config, data)
    generator = np.random.default_rng(3)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(variable + np.abs(generator.normal(0, 0.2, variable.shape)))
    model.compile(optimizer="sgd")
    model.optimizer.build(model.trainable_variables)
    return model


def finished(config, data, model):
    generator = np.random.default_rng(4)

    def scores(split, count):
        return evaluate(generator.normal(size=(count, 10)).astype("f"), generator.integers(0, 10, count), split)

    return Record(
        run_id=config.run_id,
        status="finished",
        started="2026-01-01T00:00:00+00:00",
        config=config,
        data=data,
        environment=Environment(backend="jax", device="cpu", threads=2, versions={"keras": "3.15.1"}),
        parameters=model.count_params(),
        parameters_total=model.count_params(),
        selected_epoch=8,
        validation=scores("validation", 30),
        test=scores("test", 20),
        openings=(Opening(time="2026-01-01T00:02:00+00:00", epoch=8, purpose="final evaluation"),),
    )


@pytest.fixture(scope="module")
def images():
    """Patches of 7x7 pixels, dark or light, so that the mean over the map differs from image to image."""
    generator = np.random.default_rng(5)
    light = generator.uniform(0, 1, (150, 1, 1, 1)) ** 2
    patches = (light * generator.integers(0, 256, (150, 4, 4, 1))).astype(np.uint8)
    return patches.repeat(7, axis=1).repeat(7, axis=2)


@pytest.fixture(scope="module")
def made(small_net, tmp_path_factory, mnist_info, images):
    """One export of the main job's net: the model, its record, the export and the reloaded signatures."""
    config = TrainConfig(net="eva6", norm="ln", l2=0.0066, dropout=0.05, initializer="he_normal")
    model = trained(config, mnist_info)
    record = finished(config, mnist_info, model)
    export = export_model(model, record, tmp_path_factory.mktemp("saved_models"), images)
    return model, record, export, tf.saved_model.load(export.path).signatures


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, mnist_info):
    """A finished run on disk, of a set of random images in a cache of its own."""
    generator = np.random.default_rng(6)
    values = {
        "train_images": generator.integers(0, 256, (90, 28, 28, 1), dtype=np.uint8),
        "train_labels": np.arange(90, dtype=np.int32) % 10,
        "test_images": generator.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8),
        "test_labels": np.arange(20, dtype=np.int32) % 10,
    }
    digest = content_sha256(LABELS, values)
    folder = tmp_path_factory.mktemp("runs") / TINY.run_id
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder.parent / "cache"))
        cache.write(Arrays(name="tiny", version="1.0.0", sha256=digest, labels=LABELS, **values))
        data = dataclasses.replace(mnist_info, name="tiny", version="1.0.0", sha256=digest)
        model = trained(TINY, data)
        model.save_weights(folder / "model.weights.h5")
        write_record(finished(TINY, data, model), folder / "record.json")
        yield folder


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def example(image):
    return record(png(image))


def record(file):
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
    return tf.train.Example(features=tf.train.Features(feature={"image": value})).SerializeToString()


def ask(signatures, name, batch):
    """Asks a signature in the way of a client that knows nothing of kernorm."""
    match name:
        case "serving_default":
            return signatures[name](image=tf.constant(batch))
        case "serving_png":
            return signatures[name](image_bytes=tf.constant([png(image) for image in batch], tf.string))
        case _:
            key = {"serving_tf_examples": "examples", "classify": "inputs"}[name]
            return signatures[name](**{key: tf.constant([example(image) for image in batch], tf.string)})


def test_a_wrong_rank_size_or_type_is_refused_and_the_next_request_answered(made, images):
    """As TF Serving asks, which holds no request against the signature; the net itself takes images of any size."""
    path = made[2].path
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        options = CallableOptions(feed=[signature.inputs["image"].name], fetch=[signature.outputs["logits"].name])
        serve = session._make_callable_from_options(options)
        (before,) = serve(images[:3])
        for wrong, message in (
            (images[:3, ..., 0], r"\[3,28,28\] is not compatible with expected shape \[\?,28,28,1\]"),
            (images[:3, :20], r"\[3,20,28,1\] is not compatible with expected shape \[\?,28,28,1\]"),
            (images[:3].astype(np.float32), "Type mismatch: actual float vs. expect uint8"),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                serve(wrong)
        np.testing.assert_array_equal(serve(images[:3])[0], before)


@pytest.mark.parametrize(
    ("name", "output", "encode"),
    [("serving_png", "class_id", png), ("serving_tf_examples", "class_id", example), ("classify", "scores", example)],
)
def test_one_image_without_a_list_is_refused_in_plain_words(made, images, name, output, encode):
    """`{"b64": ...}` instead of `[{"b64": ...}]`; a server feeds it to the graph as it is."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(made[2].path)).signature_def[name]
        (entry,) = signature.inputs.values()
        options = CallableOptions(feed=[entry.name], fetch=[signature.outputs[output].name])
        serve = session._make_callable_from_options(options)
        rule = r"Images must be a list, also one image: .*Received: a tensor of this shape:\] \[\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            serve(np.array(encode(images[0]), object))
        if name == "serving_png":
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"a tensor of this shape:\] \[1 1\]"):
                serve(np.array([[encode(images[0])]], object))
        assert len(serve(np.array([encode(images[0])], object))[0]) == 1


@pytest.mark.parametrize("size", [0, 1, 3, 128])
@pytest.mark.parametrize("name", ["serving_default", "serving_png", "serving_tf_examples"])
def test_every_way_of_asking_answers_as_the_model(made, images, name, size):
    model, _, _, signatures = made
    answer = ask(signatures, name, images[:size])
    logits = model.predict(images[:128], verbose=0)[:size]
    np.testing.assert_allclose(answer["logits"], logits, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(answer["class_id"], logits.argmax(-1))
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), rtol=0, atol=1e-6)
    assert (answer["class_id"].dtype, answer["probabilities"].dtype, answer["logits"].dtype) == (
        tf.int64,
        tf.float32,
        tf.float32,
    )
    if name != "serving_default":
        assert [label.decode() for label in answer["class_name"].numpy()] == [LABELS[n] for n in logits.argmax(-1)]
    assert len(set(logits.argmax(-1))) > 2 or size < 128  # A model that answers always the same would prove little.


@pytest.mark.parametrize("size", [0, 1, 3, 128])
def test_classify_gives_all_labels_the_likeliest_first(made, images, size):
    _, _, _, signatures = made
    ranked = ask(signatures, "classify", images[:size])
    answer = ask(signatures, "serving_default", images[:size])
    order = np.argsort(-answer["logits"].numpy(), axis=-1, kind="stable")
    names = np.array(LABELS)[order]
    assert ranked["classes"].numpy().astype(str).tolist() == names.tolist()
    assert (np.diff(ranked["scores"], axis=-1) <= 0).all()
    np.testing.assert_allclose(
        ranked["scores"], np.take_along_axis(answer["probabilities"].numpy(), order, -1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        pytest.param(TrainConfig(net="eva4", norm="bn", penalize="all", l1=1e-4), (28, 28, 1), marks=pytest.mark.slow),
        (
            TrainConfig(net="eva6", norm="frn", norm_at=("conv2=brn", "conv3=gbn"), standardize_kernels=True),
            (32, 32, 3),
        ),
    ],
    ids=["eva4-bn", "eva6-mixed-colour"],
)
def test_other_nets_norms_and_images(tmp_path, mnist_info, config, shape):
    channels = shape[-1]
    data = dataclasses.replace(mnist_info, image_shape=shape, mean=(33.0,) * channels, std=(78.0,) * channels)
    images = np.random.default_rng(8).integers(0, 256, (20, *shape), dtype=np.uint8)
    model = trained(config, data)
    export = export_model(model, finished(config, data, model), tmp_path, images)
    signatures = tf.saved_model.load(export.path).signatures
    for name in ("serving_default", "serving_png"):
        logits = ask(signatures, name, images)["logits"]
        np.testing.assert_allclose(logits, model.predict(images, verbose=0), rtol=0, atol=1e-5)


def test_bad_images_are_refused_and_the_model_goes_on(made, images):
    _, _, _, signatures = made
    before = ask(signatures, "serving_png", images[:2])["logits"].numpy()
    rule = r"must be an 8-bit greyscale PNG of 28x28 pixels, channels=1"
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        signatures["serving_png"](image_bytes=tf.constant([png(images[0]), b"no image"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[20,28,1\] is not compatible with .* \[28,28,1\]"):
        signatures["classify"](inputs=tf.constant([example(images[0][:20])]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be a PNG or JPEG file\. Received: .*\] \[1\]"):
        signatures["serving_tf_examples"](examples=tf.constant([example(images[0]), record(b"GIF89a")]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="image .*is required but could not be found"):
        signatures["serving_tf_examples"](examples=tf.constant([tf.train.Example().SerializeToString()]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse example"):
        signatures["serving_tf_examples"](examples=tf.constant([b"no record"]))
    np.testing.assert_array_equal(ask(signatures, "serving_png", images[:2])["logits"], before)


def test_records_as_tensorflow_datasets_writes_them(made, images, tmp_path):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(num_classes=10)
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(28, 28, 1)), "label": label})
    with tf.io.TFRecordWriter(str(tmp_path / "tiny.tfrecord")) as writer:
        for index, image in enumerate(images[:9]):
            writer.write(features.serialize_example(features.encode_example({"image": image, "label": index})))
    model, _, _, signatures = made
    (records,) = tf.data.TFRecordDataset(str(tmp_path / "tiny.tfrecord")).batch(9)
    logits = signatures["serving_tf_examples"](examples=records)["logits"]
    np.testing.assert_allclose(logits, model.predict(images[:9], verbose=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("key", "kind"), [("image", "jpeg"), ("image", "png"), ("picture", "png")])
def test_records_of_a_set_are_answered_whatever_their_format(made, images, tmp_path, key, kind):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(num_classes=10)
    image = tfds.features.Image(shape=(28, 28, 1), encoding_format=kind)
    features = tfds.features.FeaturesDict({key: image, "label": label})
    template = tfds.core.ShardedFileTemplate(
        tmp_path, dataset_name="tiny", split="train", filetype_suffix="tfrecord", template=None
    )
    file = template.sharded_filepath(shard_index=0, num_shards=1)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for index, pixels in enumerate(images[:9]):
            writer.write(features.serialize_example(features.encode_example({key: pixels, "label": index})))
    split = tfds.core.SplitInfo(name="train", shard_lengths=[9], num_bytes=0, filename_template=template)
    tfds.folder_dataset.write_metadata(data_dir=tmp_path, features=features, split_infos=[split])
    (tmp_path / runtimes.RECORDS).symlink_to(file)
    if key == "image":
        answers, _ = runtimes.records(made[2].path, tmp_path)
        wanted = answers["wanted:serving_tf_examples"]
        assert wanted.shape == (9, 10)
        np.testing.assert_allclose(answers["serving_tf_examples"], wanted, rtol=0, atol=5e-5)
    else:
        with pytest.raises(NotServed, match="the set calls its images 'picture', the signature 'image'"):
            runtimes.records(made[2].path, tmp_path)


def test_a_session_of_tensorflow_1_answers_likewise(made, images):
    model, _, export, _ = made
    wanted = model.predict(images[:3], verbose=0)
    feeds = {
        "serving_default": images[:3],
        "serving_png": [png(image) for image in images[:3]],
        "serving_tf_examples": [example(image) for image in images[:3]],
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], export.path)
        assert sorted(name for name in meta.signature_def if not name.startswith("__")) == SIGNATURES
        for name, feed in feeds.items():
            signature = meta.signature_def[name]
            ((_, tensor),) = signature.inputs.items()
            logits = session.run(signature.outputs["logits"].name, {tensor.name: feed})
            np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)
        signature = meta.signature_def["serving_png"]
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be an 8-bit greyscale PNG of 28x28"):
            session.run(signature.outputs["class_id"].name, {signature.inputs["image_bytes"].name: [b"no image"]})


@pytest.mark.parametrize("size", [1, 3, 128])
def test_openvino_reads_the_folder_and_agrees(made, images, size):
    import openvino

    model, _, export, _ = made
    compiled = openvino.Core().compile_model(export.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"image": images[:size]})
    logits = model.predict(images[:size], verbose=0)
    np.testing.assert_allclose(answer["logits"], logits, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(answer["class_id"], logits.argmax(-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "litert", "openvino"])
def test_other_formats_are_made_of_it(made, name):
    """None of them takes the strings of the other signatures; `convert` compares the answers itself."""
    assert convert(Path(made[2].path), name).exists()


def test_every_warm_up_record_parses_and_is_answered(made, images):
    model, record, export, signatures = made
    path = Path(export.path) / "assets.extra/tf_serving_warmup_requests"
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    assert len(logs) == 16
    wanted = model.predict(images, verbose=0)
    for log in logs:
        answer = warmup.answer(log, signatures)
        if log.HasField("predict_log"):
            np.testing.assert_allclose(answer["logits"], wanted[: len(answer["logits"])], rtol=0, atol=1e-5)
            assert log.predict_log.request.model_spec.name == record.run_id
        else:
            assert [row[0].decode() for row in answer["classes"].numpy()] == [
                str(best) for best in wanted.argmax(-1)[: len(answer["classes"])]
            ]


def test_a_server_needs_only_ordinary_operations(made):
    _, _, export, _ = made
    ops = set.union(*(reachable_ops(Path(export.path), name) for name in SIGNATURES))
    assert {"Conv2D", "DecodePng", "ParseExampleV2", "TopKV2"} <= ops
    odd = ("Py", "Xla", "Assign", "Random", "Stateful", "Custom", "Apply", "Hash", "Print", "Save", "Restore")
    assert not {op for op in ops - {"StatefulPartitionedCall"} if any(word in op for word in odd)}
    default = reachable_ops(Path(export.path), "serving_default")
    assert not {op for op in default if any(word in op for word in ("Decode", "Parse", "While", "Assert", "String"))}


def test_the_folder_is_small_and_holds_no_optimizer(made):
    _, _, export, _ = made
    assert sum(path.stat().st_size for path in Path(export.path).rglob("*") if path.is_file()) < 1_000_000
    names = [name for name, _ in tf.train.list_variables(str(Path(export.path) / "variables" / "variables"))]
    assert names
    assert not [name for name in names if "optimizer" in name or "momentum" in name]


def test_what_travels_with_the_model(made):
    model, record, export, _ = made
    card = read_card(Path(export.path))
    assert (card.run_id, card.version, card.data) == (record.run_id, export.version, record.data)
    assert card.exported_with["tensorflow"] == tf.__version__
    assert sorted(card.signatures) == SIGNATURES
    assert card.signatures["serving_default"].inputs["image"].shape == (None, 28, 28, 1)
    assert card.signatures["serving_png"].inputs["image_bytes"].dtype == "string"
    shapes = {name: tensor.shape for name, tensor in card.signatures["serving_png"].outputs.items()}
    numbers = {"class_id": (None,), "probabilities": (None, 10), "logits": (None, 10)}
    assert shapes == numbers | {"class_name": (None,)}
    # Without strings, which OpenVINO, ONNX and LiteRT do not take.
    assert {name: tensor.shape for name, tensor in card.signatures["serving_default"].outputs.items()} == numbers
    assert "string" not in {tensor.dtype for tensor in card.signatures["serving_default"].outputs.values()}
    assert (Path(export.path) / FOLDER / "labels.txt").read_text().splitlines() == list(LABELS)


def test_the_tree_hash_sees_one_byte(made, tmp_path):
    _, _, export, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(export.path, copy)
    written = (copy / FOLDER / "tree.sha256").read_text()
    assert written == f"{export.tree_sha256}\n" == f"{tree_sha256(copy)}\n"
    weights = next((copy / "variables").glob("*.data*"))
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    assert tree_sha256(copy) != export.tree_sha256


def test_a_changed_model_is_not_what_was_exported(made, images, mnist_info):
    _, record, _, signatures = made
    other = build_model_for(record.config, mnist_info)
    with pytest.raises(
        RuntimeError, match=r"^An exported model must answer .* logits that differ by .* at batch size 1\."
    ):
        check_answers(other, signatures, LABELS, images)
    for variable in other.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(RuntimeError, match=r"^A model must answer with finite .* Train with"):
        check_answers(other, signatures, LABELS, images)


def test_labels_in_another_order_are_not_what_was_exported(made, images):
    model, _, _, signatures = made
    with pytest.raises(RuntimeError, match=r"^An exported model's outputs must .* Received: class_name that do not"):
        check_answers(model, signatures, LABELS[::-1], images)


def test_a_failed_check_leaves_nothing(made, images, tmp_path, mnist_info):
    _, record, _, _ = made
    model = build_model_for(record.config, mnist_info)
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(RuntimeError, match="finite numbers"):
        export_model(model, record, tmp_path, images)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(made, images, tmp_path):
    model, record, _, _ = made
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # Between the weights' size and the graph's.
    try:
        with pytest.raises(UsageError, match=r"^A version needs room on its disk\. Received: .*Free some space"):
            export_model(model, record, tmp_path, images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("samples", "received"),
    [
        (np.zeros((0, 28, 28, 1), np.uint8), r"uint8 of shape \(0, 28, 28, 1\)"),
        (np.zeros((4, 28, 28, 3), np.uint8), r"uint8 of shape \(4, 28, 28, 3\)"),
        (np.zeros((4, 28, 28, 1), np.float32), r"float32 of shape \(4, 28, 28, 1\)"),
    ],
)
def test_samples_that_do_not_fit(made, tmp_path, samples, received):
    model, record, _, _ = made
    with pytest.raises(UsageError, match=rf"^Samples must be uint8 images .* Received: {received}\. Use the run's own"):
        export_model(model, record, tmp_path, samples)


def run(*words):
    return cli.run(ExportConfig, main, prog="python -m kernorm.export", argv=[str(word) for word in words])


@pytest.fixture
def copied(run_folder, tmp_path, monkeypatch):
    """A copy of the run's folder to spoil; `main` may set its variables."""
    for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, "2"))
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def refusal(capsys, *words):
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_command_exports_and_enters_it_in_the_record(copied, tmp_path, capsys, images):
    before = read_record(copied / "record.json")
    assert run(copied, "--saved-models-dir", tmp_path / "out") == 0
    path = Path(capsys.readouterr().out.strip())
    after = read_record(copied / "record.json")
    assert path == tmp_path / "out" / TINY.run_id / str(after.export.version) == Path(after.export.path)
    assert after == dataclasses.replace(before, export=after.export)
    model = load_model(after, copied / "model.weights.h5")
    logits = tf.saved_model.load(str(path)).signatures["serving_default"](image=tf.constant(images))["logits"]
    np.testing.assert_allclose(logits, model.predict(images, verbose=0), rtol=0, atol=1e-5)
    # Whoever has the model can read its warm-up requests: none may hold an image of the test split.
    (largest,) = [log for log in _warmup_images(path) if len(log) == 30]
    arrays = cache.read(cache.cached_path("tiny"))
    trained_on = {image.tobytes() for image in arrays.train_images}
    assert {image.tobytes() for image in largest} <= trained_on


def _warmup_images(path):
    for record in tf.data.TFRecordDataset(str(path / warmup.PATH)):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        if "image" in request.inputs:
            yield tf.make_ndarray(request.inputs["image"])


def test_a_folder_without_a_record(tmp_path, capsys):
    assert "error: A run folder holds a record.json. Received: " in refusal(capsys, tmp_path)


def test_a_folder_without_weights(copied, capsys):
    (copied / "model.weights.h5").unlink()
    assert "error: A run is exported from its weights. Received: " in refusal(capsys, copied)


def test_a_run_that_is_not_finished(copied, capsys):
    record = read_record(copied / "record.json")
    write_record(dataclasses.replace(record, status="diverged"), copied / "record.json")
    assert "Only a finished run can be exported. Received: " in (said := refusal(capsys, copied))
    assert "status='diverged'" in said


def test_weights_that_do_not_fit(copied, tmp_path, capsys):
    record = read_record(copied / "record.json")
    changed = dataclasses.replace(record, config=dataclasses.replace(record.config, norm="none"))
    write_record(changed, copied / "record.json")
    said = refusal(capsys, copied, "--saved-models-dir", tmp_path / "out")
    assert "error: Weights must be whole and of the net that their record describes. Received: " in said
    assert not (tmp_path / "out").exists()


def test_a_folder_for_saved_models_that_is_a_file(copied, tmp_path, capsys):
    (tmp_path / "file").touch()
    said = refusal(capsys, copied, "--saved-models-dir", tmp_path / "file")
    assert "error: Versions go into a folder that can be written. Received: " in said


def test_without_tensorflow_the_reason_and_the_way_are_told(copied, tmp_path, monkeypatch):
    for module in ("tensorflow", "tensorflow_serving"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            export = export_in_subprocess(copied, tmp_path)
        assert export.path is None
        package = {"tensorflow_serving": "tensorflow-serving-api"}.get(module, module)
        assert export.reason.startswith(f"An export needs {package}. Received: an environment without it.")
        assert export.reason.endswith(f"then run python -m kernorm.export {copied}.")
        assert read_record(copied / "record.json").export == export


def test_a_reason_for_no_export_does_not_replace_an_export(copied, tmp_path, monkeypatch):
    record = dataclasses.replace(read_record(copied / "record.json"), export=Export(path="there", version=1))
    write_record(record, copied / "record.json")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert export_in_subprocess(copied, tmp_path).path is None
    assert read_record(copied / "record.json") == record


def test_the_command_without_tensorflow(copied, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    said = refusal(capsys, copied)
    assert said.startswith("error: An export needs tensorflow. Received: an environment without it. Install it by")


def test_help_answers_without_the_heavy_packages():
    code = """
import sys
from kernorm import export
from kernorm.system import cli
try:
    cli.run(export.ExportConfig, export.main, prog="python -m kernorm.export", argv=["--help"])
except SystemExit as stop:
    loaded = {name.split(".")[0] for name in sys.modules}
    heavy = {"tensorflow", "keras", "numpy", "matplotlib", "tensorflow_datasets", "scipy", "h5py"}
    print(stop.code, sorted(loaded & heavy))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--saved-models-dir" in said
    assert said.splitlines()[-1] == "0 []"


@pytest.mark.slow
def test_another_backend_exports_in_a_process_of_its_own(copied, tmp_path):
    pytest.importorskip("torch")
    code = """
import sys
from pathlib import Path
from kernorm.errors import UsageError
from kernorm.saved_model.export import export_model, export_run
import numpy as np
print(export_run(Path(sys.argv[1]), Path(sys.argv[2])).path)
try:
    export_model(None, None, None, np.zeros((1, 28, 28, 1), np.uint8))
except UsageError as error:
    print(error)
"""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    finished = subprocess.run(
        [sys.executable, "-c", code, copied, tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    path, refused = finished.stdout.splitlines()
    export = read_record(copied / "record.json").export
    assert path == export.path
    assert tree_sha256(Path(path)) == export.tree_sha256
    assert refused.startswith("An export needs Keras on TensorFlow. Received: KERAS_BACKEND='torch'. Use python -m")


@pytest.mark.slow
def test_a_refusal_of_that_process_is_told_in_its_words(copied, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^Versions go into a folder that can be written\. Received: "):
        export_in_subprocess(copied, tmp_path / "file")


# The card is opened after the SavedModel is written, before the hash; the rename is the last step.
@pytest.mark.slow
@pytest.mark.parametrize(("event", "word"), [("open", "labels.txt"), ("os.rename", "model")])
def test_a_killed_export_leaves_no_version_and_the_next_one_cleans_up(copied, tmp_path, event, word):
    code = f"""
import os, signal, sys
from pathlib import Path
def kill(event, arguments):
    if event == {event!r} and {word!r} in Path(str(arguments[0])).name:
        os.kill(os.getpid(), signal.SIGKILL)
from kernorm.saved_model.export import export_run
sys.addaudithook(kill)
export_run(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, copied, tmp_path / "out"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    base = tmp_path / "out" / TINY.run_id
    (leftover,) = base.iterdir()
    assert (leftover / "model" / "saved_model.pb").exists()
    assert versions(base) == []
    assert read_record(copied / "record.json").export is None
    export = export_run(copied, tmp_path / "out")
    assert [path.name for path in base.iterdir()] == [str(export.version)]

"""tf2onnx's converter, in a process that starts TensorFlow as kernorm does: `python -m kernorm.saved_model.onnx`."""

import runpy

from kernorm.system.backend import import_tensorflow

if __name__ == "__main__":
    import_tensorflow()
    runpy.run_module("tf2onnx.convert", run_name="__main__", alter_sys=True)

"""What a SavedModel runs when it is asked: the operations a signature reaches, and those that may not be there.

Reads saved_model.pb as a message, without loading it. Used by export before a candidate is published.
"""

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

# Python that the server lacks; XLA, which TF Serving switches off; state; chance; gradients that it does not know.
REFUSED = (
    "*PyFunc*",
    "Xla*",
    "Assign*",
    "Resource*Apply*",
    "Resource*Scatter*",
    "*Random*",
    "*Multinomial*",
    "Save*",
    "Write*",
    "Print*",
)
# OpenVINO reads a SavedModel's serving_default directly and knows none of these.
REFUSED_BY_DEFAULT = ("Decode*", "Parse*", "*String*", "TensorList*", "*While", "Assert", "Lookup*", "Hash*")


def reachable_ops(folder: Path, signature: str) -> set[str]:
    """Returns the types of all operations that a signature's outputs depend on, through every function they call.

    A node that carries a custom gradient's name counts as the type `CustomGradient` too.
    """
    meta = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    outputs = meta.signature_def[signature].outputs.values()
    nodes = _ancestors(meta.graph_def, [tensor.name for tensor in outputs])
    functions = {function.signature.name: function.node_def for function in meta.graph_def.library.function}
    ops: set[str] = set()
    seen: set[str] = set()
    while nodes:
        node = nodes.pop()
        ops.add(node.op)
        if "_gradient_op_type" in node.attr:
            ops.add("CustomGradient")
        for name in _called(node) - seen:
            seen.add(name)
            # A whole body runs, not only what its outputs depend on: it may have effects.
            nodes.extend(functions[name])
    return ops


def refused_ops(folder: Path, signature: str) -> set[str]:
    """Returns the operations a signature reaches that a server must not, or need not be able to, run."""
    refused = (*REFUSED, *REFUSED_BY_DEFAULT) if signature == "serving_default" else REFUSED
    return {
        op
        for op in reachable_ops(folder, signature)
        if op == "CustomGradient" or any(fnmatch.fnmatchcase(op, pattern) for pattern in refused)
    }


def check_graph(folder: Path, signatures: Iterable[str]) -> None:
    """Makes sure that a server can run the signatures of the SavedModel in `folder`.

    Raises:
        RuntimeError: one of them reaches a refused operation.
    """
    for signature in signatures:
        if refused := refused_ops(folder, signature):
            raise RuntimeError(
                f"An exported model holds only operations that every server runs. Received: "
                f"{', '.join(sorted(refused))} in {signature}. Report this."
            )


def _ancestors(graph: GraphDef, tensors: Iterable[str]) -> list[NodeDef]:
    by_name = {node.name: node for node in graph.node}
    waiting = [_node_name(tensor) for tensor in tensors]
    found: dict[str, NodeDef] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = by_name[name]
            waiting.extend(_node_name(source) for source in by_name[name].input)
    return list(found.values())


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]


def _called(node: NodeDef) -> set[str]:
    values = node.attr.values()
    called = {value.func.name for value in values if value.HasField("func")}
    return called | {function.name for value in values for function in value.list.func}

"""The messages of a SavedModel that are read here, as protobuf types without TensorFlow.

Fields that are not named are kept as they came. Source: TensorFlow, `tensorflow/core/protobuf/saved_model.proto`,
`meta_graph.proto`, `saver.proto`; `tensorflow/core/framework/graph.proto`, `node_def.proto`, `function.proto`,
`op_def.proto`, `attr_value.proto`, `tensor_shape.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

PACKAGE = "modelyard.saved_model"
Fields = Mapping[str, tuple[int, str]]
MESSAGES: Mapping[str, Fields] = {
    "SavedModel": {"saved_model_schema_version": (1, "int"), "meta_graphs": (2, "*MetaGraph")},
    "MetaGraph": {
        "meta_info_def": (1, "MetaInfo"), "graph_def": (2, "Graph"), "saver_def": (3, "Saver"),
        "signature_def": (5, "%Signature"),
    },
    "MetaInfo": {"tags": (4, "*str"), "tensorflow_version": (5, "str")},
    "Saver": {"filename_tensor_name": (1, "str"), "restore_op_name": (3, "str")},
    "Signature": {"inputs": (1, "%TensorInfo"), "outputs": (2, "%TensorInfo"), "method_name": (3, "str")},
    "TensorInfo": {"name": (1, "str"), "dtype": (2, "int"), "tensor_shape": (3, "Shape")},
    "Shape": {"dim": (2, "*Dim"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int")},
    "Graph": {"node": (1, "*Node"), "library": (2, "Library")},
    "Library": {"function": (1, "*Function")},
    "Function": {
        "signature": (1, "Declared"), "node_def": (3, "*Node"), "attr": (5, "%Value"),
    },
    "Declared": {"name": (1, "str"), "input_arg": (2, "*Argument")},
    "Argument": {"name": (1, "str")},
    "Node": {
        "name": (1, "str"), "op": (2, "str"), "input": (3, "*str"), "device": (4, "str"), "attr": (5, "%Value"),
    },
    "Value": {"list": (1, "Values"), "func": (10, "Called")},
    "Values": {"func": (9, "*Called")},
    "Called": {"name": (1, "str"), "attr": (2, "%Value")},
}  # fmt: skip
"""Message, field, number and type: `*` repeated, `%` a map from text."""


def message(name: str) -> Any:
    """The class of a message, for `FromString` and `SerializeToString`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return pool


def _file() -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name="saved_model.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add(made, field, number, kind)
    return file


def _add(made: Any, name: str, number: int, kind: str) -> None:
    """One field; a map is a repeated message of keys and values, as the protobuf language defines it."""
    field = made.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if kind[0] in "*%" else field.LABEL_OPTIONAL
    if kind[0] != "%":
        _type(field, kind.lstrip("*"))
        return
    entry = made.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    for part, at, inner in (("key", 1, "str"), ("value", 2, kind[1:])):
        each = entry.field.add(name=part, number=at)
        each.label = each.LABEL_OPTIONAL
        _type(each, inner)
    field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{made.name}.{entry.name}"


def _type(field: Any, kind: str) -> None:
    plain = {"int": field.TYPE_INT64, "str": field.TYPE_STRING, "bool": field.TYPE_BOOL}
    if kind in plain:
        field.type = plain[kind]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"

"""The careful reading of an Open Inference Protocol request: every refusal names its field.

Sources: open-inference-protocol `inference_rest.md` (objects) and Triton's binary tensor data extension. Fields and
parameters that are not known here are accepted and ignored, as both say.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple, NoReturn

from modelyard.codec.json_strict import parse, printable
from modelyard.codec.signature_plan import SignaturePlan, remember
from modelyard.codec.tensors import bad_size, check_shape, from_bytes, from_json, shown
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import DATATYPES, Array, CodecBounds, DecodedRequest, OutputRequest, TensorSpec

MAX_SUBJECT_BYTES = 256
_MAX_CACHED_ENVELOPE = 2048
_EXAMPLE_INPUT = {"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]}


class InputPart(NamedTuple):
    """One input of the envelope: its data as JSON, or the size of its blob."""

    spec: TensorSpec
    shape: tuple[int, ...]
    data: Any
    binary_size: int | None
    field: str


class Envelope(NamedTuple):
    """A request's JSON part, checked against the signature; the blobs are not read yet."""

    inputs: tuple[InputPart, ...]
    outputs: tuple[OutputRequest, ...]
    binary: bool
    client_id: str | None
    subject: str | None


def read_request(
    header: bytes, blobs: memoryview, has_blobs: bool, plan: SignaturePlan, bounds: CodecBounds
) -> DecodedRequest:
    """The request whose JSON part is `header` and whose binary tensors follow each other in `blobs`."""
    envelope = plan.envelopes.get(header) if has_blobs else None
    if envelope is None:
        envelope = _read_envelope(parse(header, bounds), has_blobs, plan)
        if has_blobs and len(header) <= _MAX_CACHED_ENVELOPE and all(p.data is None for p in envelope.inputs):
            remember(plan.envelopes, header, envelope)
    inputs = _read_tensors(envelope.inputs, blobs)
    return DecodedRequest(
        inputs=inputs,
        rows=shared_rows(inputs, plan),
        client_id=envelope.client_id,
        outputs=envelope.outputs,
        binary=envelope.binary,
        subject=envelope.subject,
    )


def shared_rows(inputs: dict[str, Array], plan: SignaturePlan) -> int:
    """The first dimension that all inputs share, or 0 where they have none in common."""
    if not plan.batched:
        return 0
    counts = {array.shape[0] for array in inputs.values()}
    return int(counts.pop()) if len(counts) == 1 else 0


def _read_envelope(document: Any, has_blobs: bool, plan: SignaturePlan) -> Envelope:
    if type(document) is not dict:
        _wrong_type("body", "an object", document, {"inputs": [_EXAMPLE_INPUT]})
    parameters = read_object(document.get("parameters"), "parameters")
    outputs = read_outputs(document.get("outputs"), plan)
    binary = read_flag(parameters, "binary_data_output", "parameters.binary_data_output") or False
    check_fp16(outputs, binary, plan)
    inputs = _read_inputs(document, has_blobs, plan)
    client_id = read_text(document.get("id"), "id")
    return Envelope(inputs, outputs, binary, client_id, read_subject(parameters.get("subject"), "parameters.subject"))


def _read_inputs(document: dict[str, Any], has_blobs: bool, plan: SignaturePlan) -> tuple[InputPart, ...]:
    inputs = _required(document, "inputs", "inputs", [_EXAMPLE_INPUT])
    if type(inputs) is not list:
        _wrong_type("inputs", "a list of inputs", inputs, [_EXAMPLE_INPUT])
    parts: dict[str, InputPart] = {}
    for index, item in enumerate(inputs):
        part = _read_input(item, f"inputs[{index}]", has_blobs, plan)
        if part.spec.name in parts:
            raise InvalidRequestError(
                "input_duplicate",
                f"Input {printable(part.spec.name)} is sent twice.",
                field=f"inputs[{index}].name",
                expected="each input once",
                got=printable(part.spec.name),
            )
        parts[part.spec.name] = part
    missing = [name for name in plan.inputs if name not in parts]
    if missing:
        raise InvalidRequestError(
            "input_missing",
            f"Input {printable(missing[0])} is missing.",
            field="inputs",
            expected=list(plan.inputs),
            got=list(parts),
            example=example_of(plan.inputs[missing[0]]),
        )
    return tuple(parts.values())


def example_of(spec: TensorSpec) -> dict[str, Any]:
    """How the input could be sent, its data left out."""
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype}


def _read_input(item: Any, field: str, has_blobs: bool, plan: SignaturePlan) -> InputPart:
    if type(item) is not dict:
        _wrong_type(field, "an object", item, _EXAMPLE_INPUT)
    spec = _read_name(item, field, plan)
    _check_datatype(_required(item, "datatype", f"{field}.datatype", spec.datatype), spec, field)
    shape = check_shape(_required(item, "shape", f"{field}.shape", example_of(spec)["shape"]), f"{field}.shape")
    if not fits(shape, spec.shape):
        raise InvalidRequestError(
            "shape_mismatch",
            f"{field}.shape does not fit the model's input {printable(spec.name)}.",
            field=f"{field}.shape",
            expected=list(spec.shape),
            got=list(shape),
            example=example_of(spec)["shape"],
        )
    size = _binary_size(read_object(item.get("parameters"), f"{field}.parameters"), field, has_blobs)
    if size is not None and "data" in item:
        raise InvalidRequestError(
            "parameter_invalid",
            f"{field} has both data and binary_data_size.",
            field=f"{field}.parameters.binary_data_size",
            expected="either data or parameters.binary_data_size",
            got="both",
        )
    data = _required(item, "data", f"{field}.data", [0.5, 1.5]) if size is None else None
    return InputPart(spec, shape, data, size, field)


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the shape has the wanted rank and dimensions; -1 is free."""
    return len(shape) == len(wanted) and all(want in (-1, dim) for dim, want in zip(shape, wanted, strict=True))


def _read_name(item: dict[str, Any], field: str, plan: SignaturePlan) -> TensorSpec:
    name = _required(item, "name", f"{field}.name", next(iter(plan.inputs), "X"))
    if type(name) is not str:
        _wrong_type(f"{field}.name", "a string", name, "X")
    spec = plan.inputs.get(name)
    if spec is None:
        raise InvalidRequestError(
            "input_unknown",
            f"{field}.name: the model has no input `{printable(name)}`; it has {_listed(plan.inputs)}.",
            field=f"{field}.name",
            expected=list(plan.inputs),
            got=printable(name),
            example=next(iter(plan.inputs), None),
        )
    return spec


def _listed(names: Iterable[str]) -> str:
    """The first ten names: some clients show the sentence alone."""
    return ", ".join(f"`{name}`" for name in islice(names, 10))


def _check_datatype(datatype: Any, spec: TensorSpec, field: str) -> None:
    if datatype == spec.datatype:
        return
    if type(datatype) is not str:
        _wrong_type(f"{field}.datatype", "a string", datatype, spec.datatype)
    unknown = datatype not in DATATYPES
    raise InvalidRequestError(
        "datatype_unknown" if unknown else "datatype_mismatch",
        f"{field}.datatype is not " + ("a datatype of the protocol." if unknown else "the model's."),
        field=f"{field}.datatype",
        expected=spec.datatype,
        got=printable(datatype),
        example=spec.datatype,
    )


def _binary_size(parameters: dict[str, Any], field: str, has_blobs: bool) -> int | None:
    size = parameters.get("binary_data_size")
    place = f"{field}.parameters.binary_data_size"
    if size is None:
        return None
    if type(size) is not int or size < 0:
        _bad_parameter(place, "a whole number of bytes, 0 or more", size, 120)
    if not has_blobs:
        raise InvalidRequestError(
            "header_length_invalid",
            "Binary data needs the header Inference-Header-Content-Length.",
            field="Inference-Header-Content-Length",
            expected="the length of the JSON part in bytes",
            got="no header",
            example="181",
        )
    return size


def _read_tensors(parts: tuple[InputPart, ...], blobs: memoryview) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    position = 0
    for part in parts:
        if part.binary_size is None:
            inputs[part.spec.name] = from_json(part.data, part.spec.datatype, part.shape, f"{part.field}.data")
            continue
        end = position + part.binary_size
        if end > len(blobs):
            bad_size(part.field, f"{part.binary_size} bytes after the JSON part", len(blobs) - position)
        inputs[part.spec.name] = from_bytes(blobs[position:end], part.spec.datatype, part.shape, part.field)
        position = end
    if position != len(blobs):
        bad_size("body", f"{position} bytes after the JSON part", len(blobs))
    return inputs


def read_outputs(outputs: Any, plan: SignaturePlan) -> tuple[OutputRequest, ...]:
    """The requested outputs in their order. Raises output_unknown, output_duplicate and the type errors."""
    if outputs is None:
        return ()
    if type(outputs) is not list:
        _wrong_type("outputs", "a list of outputs", outputs, [{"name": next(iter(plan.outputs), "Y")}])
    wanted: dict[str, OutputRequest] = {}
    for index, item in enumerate(outputs):
        request = _read_output(item, f"outputs[{index}]", plan)
        if request.name in wanted:
            _bad_output("output_duplicate", "This output is asked for twice.", index, "each output once", request.name)
        if request.name not in plan.outputs:
            _bad_output(
                "output_unknown",
                f"outputs[{index}].name: the model has no output `{printable(request.name)}`; "
                f"it has {_listed(plan.outputs)}.",
                index,
                list(plan.outputs),
                request.name,
            )
        wanted[request.name] = request
    return tuple(wanted.values())


def _read_output(item: Any, field: str, plan: SignaturePlan) -> OutputRequest:
    example = next(iter(plan.outputs), "Y")
    if type(item) is not dict:
        _wrong_type(field, "an object", item, {"name": example})
    name = _required(item, "name", f"{field}.name", example)
    if type(name) is not str:
        _wrong_type(f"{field}.name", "a string", name, example)
    parameters = read_object(item.get("parameters"), f"{field}.parameters")
    binary = read_flag(parameters, "binary_data", f"{field}.parameters.binary_data")
    return OutputRequest(name, binary, _read_classes(parameters.get("classification"), name, field, plan))


def _read_classes(classes: Any, name: str, field: str, plan: SignaturePlan) -> int:
    """How many classes of an output are asked for (Triton's classification extension); 0 for the output itself."""
    if classes is None:
        return 0
    place = f"{field}.parameters.classification"
    if type(classes) is not int or classes < 0:
        _bad_parameter(place, "a whole number of classes", classes, 3)
    if classes and name in plan.outputs and plan.outputs[name].datatype == "BYTES":
        _bad_parameter(place, "left out: the output holds no scores", classes, None)
    return classes


def _bad_output(code: str, message: str, index: int, expected: Any, got: str) -> NoReturn:
    raise InvalidRequestError(code, message, field=f"outputs[{index}].name", expected=expected, got=printable(got))


def check_fp16(outputs: tuple[OutputRequest, ...], binary: bool, plan: SignaturePlan) -> None:
    """Refuses an FP16 output that would have to travel as JSON."""
    if not plan.fp16_outputs:
        return
    for request in outputs or tuple(OutputRequest(name) for name in plan.outputs):
        if (
            request.name in plan.fp16_outputs
            and not request.classes
            and not (binary if request.binary is None else request.binary)
        ):
            raise InvalidRequestError(
                "datatype_mismatch",
                f"Output {printable(request.name)} is FP16, which cannot travel as JSON; ask for binary data.",
                field="outputs",
                expected="parameters.binary_data true for this output, or parameters.binary_data_output true",
                got="FP16 as JSON",
                example={"name": request.name, "parameters": {"binary_data": True}},
            )


def read_subject(subject: Any, field: str) -> str | None:
    """The subject of a request, or None. Raises field_type, parameter_invalid (empty, or over 256 bytes)."""
    text = read_text(subject, field)
    if text is not None and not 0 < len(text.encode()) <= MAX_SUBJECT_BYTES:
        _bad_parameter(field, f"1 to {MAX_SUBJECT_BYTES} bytes of text", f"{len(text.encode())} bytes", "patient-17")
    return text


def read_text(value: Any, field: str) -> str | None:
    """A string that can be written in UTF-8, or None."""
    if value is None:
        return None
    if type(value) is not str or (not value.isascii() and _is_broken(value)):
        _wrong_type(field, "a string in UTF-8", value, "request-17")
    return value


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def read_object(value: Any, field: str) -> dict[str, Any]:
    """An object, {} where there is none."""
    if value is None:
        return {}
    if type(value) is not dict:
        _wrong_type(field, "an object", value, {})
    return value


def read_flag(parameters: dict[str, Any], name: str, field: str) -> bool | None:
    """A boolean parameter, None where it is not given."""
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        _bad_parameter(field, "true or false", value, True)
    return value


def _required(item: dict[str, Any], key: str, field: str, example: Any) -> Any:
    value = item.get(key)
    if value is None and key not in item:
        raise InvalidRequestError(
            "field_missing", f"{field} is missing.", field=field, expected=f"a field {key}", got=None, example=example
        )
    return value


def _wrong_type(field: str, expected: str, got: Any, example: Any) -> NoReturn:
    raise InvalidRequestError(
        "field_type", f"{field} must be {expected}.", field=field, expected=expected, got=shown(got), example=example
    )


def _bad_parameter(field: str, expected: str, got: Any, example: Any) -> NoReturn:
    raise InvalidRequestError(
        "parameter_invalid",
        f"{field} must be {expected}.",
        field=field,
        expected=expected,
        got=shown(got),
        example=example,
    )

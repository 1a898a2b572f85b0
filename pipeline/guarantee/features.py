"""A LiteRT file that answers with its features too: what its last layer decides by."""

from ai_edge_litert import schema_py_generated as schema

from pipeline.errors import ArtifactError
from pipeline.models.litert import pack

_NAME = b"features"


def with_features(content: bytes) -> bytes:
    """Return a LiteRT model that has the vector before the softmax layer as a second output.

    The operations stay as they are, and so do the probabilities. Of a model with test-time
    augmentation it is the vector of one view.

    Args:
        content: the bytes of a file with one output, or of one that was made by this function.

    Raises:
        ArtifactError: no dense softmax layer is in it.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    if len(graph.outputs) > 1:
        return content
    tensor = _before_softmax(model)
    graph.outputs = [*graph.outputs, tensor]
    for signature in model.signatureDefs or []:
        output = schema.TensorMapT()
        output.name, output.tensorIndex = _NAME, tensor
        signature.outputs = [*signature.outputs, output]
    return pack(model)


def _before_softmax(model: "schema.ModelT") -> int:
    """Return the input of the dense layer whose output is the first that a softmax takes."""
    graph = model.subgraphs[0]
    made_by = {output: operator for operator in graph.operators for output in operator.outputs}
    for operator in graph.operators:
        if _kind(model, operator) != schema.BuiltinOperator.SOFTMAX:
            continue
        found = made_by.get(operator.inputs[0])
        while found is not None and _kind(model, found) != schema.BuiltinOperator.FULLY_CONNECTED:
            found = made_by.get(found.inputs[0])
        if found is not None:
            return int(found.inputs[0])
    raise ArtifactError("the LiteRT file has no dense layer with a softmax, and so no features")


def _kind(model: "schema.ModelT", operator: "schema.OperatorT") -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    # Files of before there were more than 127 operators have it in the other field.
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))

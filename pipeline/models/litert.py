"""A network as a LiteRT file, made of a function that TensorFlow has traced."""

from typing import TYPE_CHECKING, Any

import flatbuffers  # type: ignore[import-untyped]
from ai_edge_litert import schema_py_generated as schema

from pipeline.artifacts.quiet import quiet_stderr

if TYPE_CHECKING:
    import keras

IDENTIFIER = b"TFL3"
SIGNATURE, INPUT, OUTPUT = b"serving_default", b"images", b"output_0"


def traced(network: "keras.Model") -> Any:
    """Return a network as a `tf.function` of batches of any size, as it is where it answers."""
    import tensorflow as tf

    return tf.function(
        lambda images: network(images, training=False),
        input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8)],
    )


def to_litert(function: Any) -> bytes:
    """Return the bytes of a LiteRT file that has LiteRT's own operations only.

    Keras' own export traces the network five times more and takes eight times as long.

    Args:
        function: made by `traced`.

    Raises:
        Exception: LiteRT lacks an operation; the converter's own classes are not public.
    """
    import tensorflow as tf

    with quiet_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()]
        )
        # TensorFlow's operations need TensorFlow at run time.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # Not by way of a SavedModel on disk, which is most of the time.
        converter.experimental_lower_to_saved_model = False
        return _signed(converter.convert())


def pack(model: "schema.ModelT") -> bytes:
    """Return the bytes of a LiteRT model."""
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _signed(content: bytes) -> bytes:
    """Return the same with a signature: it names what goes in and what comes out."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    (given,), (asked,) = graph.inputs, graph.outputs
    signature.inputs, signature.outputs = [_named(INPUT, given)], [_named(OUTPUT, asked)]
    model.signatureDefs = [signature]
    return pack(model)


def _named(name: bytes, tensor: int) -> "schema.TensorMapT":
    found = schema.TensorMapT()
    found.name, found.tensorIndex = name, tensor
    return found

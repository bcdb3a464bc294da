"""What a dataset of tensorflow-datasets declares in `features.json`, and how its values lie in a `tf.train.Example`.

Nested features become keys with slashes (`steps/observation/image`). Within a sequence the values of all its elements
follow each other; of sequences in sequences there are `<key>/ragged_flat_values` and, from the outside in,
`<key>/ragged_row_lengths_0, _1, …`. Booleans and all integers are int64 lists (uint64 by its bits), all floats float
lists (so a float64 keeps the precision of a float32), texts and encoded pictures bytes; a tensor with encoding `bytes`
or `zlib` is the bytes of its array (tensorflow-datasets 4.9.10, core/example_serializer.py and core/features/*.py).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from menura.data.readers.tf_example import Feature
from menura.errors import DataError

FEATURES = "features.json"
_FLAT = "ragged_flat_values"
# tfds' class -> the key of its content in features.json; those before tfds 4.6 have the class and `content` instead.
_CONTENTS = {
    "FeaturesDict": "featuresDict",
    "Sequence": "sequence",
    "Dataset": "sequence",
    "Tensor": "tensor",
    "Scalar": "tensor",
    "Image": "image",
    "Text": "text",
    "ClassLabel": "classLabel",
}
_STRINGS = ("string", "object", "str")
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NUMBERS = ("bool", *_INTEGERS, "float16", "float32", "float64")


@dataclass(frozen=True)
class Leaf:
    """A feature that holds values.

    Attributes:
        key: where it stands, `steps/observation/state`.
        kind: a numeric `tensor`, an encoded `image`, a `text`, or `other`: something that cannot be read.
        dtype: numpy's name; of `other` what tfds calls it.
        shape: of one element; None where a size is not fixed.
        sequences: how many sequences it lies in; the steps of an episode are one.
        encoding: `none`, `bytes` or `zlib`.
    """

    key: str
    kind: Literal["tensor", "image", "text", "other"]
    dtype: str
    shape: tuple[int | None, ...] = ()
    sequences: int = 0
    encoding: str = "none"

    @property
    def stored_key(self) -> str:
        """The key of its values in a `tf.train.Example`."""
        return f"{self.key}/{_FLAT}" if self.sequences > 1 else self.key

    @property
    def size(self) -> int | None:
        """Numbers in one element; None where not fixed."""
        sizes = [size for size in self.shape if size is not None]
        return int(np.prod(sizes)) if len(sizes) == len(self.shape) else None

    @property
    def bytewise(self) -> bool:
        """Whether each element is stored as one value of bytes."""
        return self.kind in ("image", "text") or self.encoding != "none"

    def count(self, example: Mapping[str, Feature]) -> int:
        """How many elements an example holds, without reading them; 1 outside of sequences.

        Raises:
            DataError: the key is absent, or the number of values is no multiple of the element's.
        """
        feature = _stored(self.stored_key, example)
        size = 1 if self.bytewise else self.size
        if size is None:
            raise DataError(f"{feature.what}: expected a fixed shape, got {self.shape}. Leave it out.")
        count, rest = divmod(len(feature), size) if size else (0, 0)
        if rest:
            raise DataError(
                f"{feature.what}: expected a multiple of {size} values (shape {self.shape}), got {len(feature)}. "
                f"Fetch the dataset again."
            )
        return count

    def elements(self, example: Mapping[str, Feature]) -> NDArray[Any] | list[bytes]:
        """All its elements: (n, *shape) in its dtype, or n values of bytes of a text or an encoded image.

        Raises:
            DataError: the key is absent or damaged, or it is of a kind that cannot be read.
        """
        feature = _stored(self.stored_key, example)
        if self.kind == "other":
            raise DataError(f"{feature.what}: expected numbers, texts or pictures, got {self.dtype}. Leave it out.")
        if self.kind != "tensor":
            return feature.texts()
        dtype = np.dtype(self.dtype)
        count = self.count(example)
        shape = (count, *(size or 0 for size in self.shape))
        if self.encoding != "none":
            return np.array([self._decoded(value, feature.what) for value in feature.texts()], dtype).reshape(shape)
        values = feature.numbers()
        if dtype == np.uint64:
            return values.astype(np.int64, copy=False).view(dtype).reshape(shape)
        return values.astype(dtype, copy=False).reshape(shape)

    def _decoded(self, value: bytes, what: str) -> NDArray[Any]:
        """The array in the bytes of a tensor with an encoding."""
        dtype = np.dtype(self.dtype)
        wanted = (self.size or 0) * dtype.itemsize
        if self.encoding == "zlib":
            try:
                # One byte more than wanted shows that there is more, without unpacking what may be endless.
                value = zlib.decompressobj().decompress(value, wanted + 1)
            except zlib.error as error:
                raise DataError(f"{what}: damaged ({error}). Fetch the dataset again.") from error
        if len(value) != wanted:
            raise DataError(f"{what}: expected {wanted} bytes (shape {self.shape}, {dtype}), got {len(value)}.")
        return np.frombuffer(value, dtype.newbyteorder("<"))


def read_features(directory: Path) -> dict[str, Leaf]:
    """The features of a dataset by key.

    Raises:
        DataError: no `features.json`, or not one of tensorflow-datasets.
    """
    path = directory / FEATURES
    try:
        node = json.loads(path.read_text())
        return {leaf.key: leaf for leaf in _leaves(node, "", 0)}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Fetch the dataset again.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected the features of a tensorflow-datasets dataset, got something else "
            f"({type(error).__name__}: {error}). Fetch the dataset again."
        ) from error


def _leaves(node: Mapping[str, Any], key: str, sequences: int) -> Iterator[Leaf]:
    name = str(node.get("pythonClassName") or node["type"]).rpartition(".")[2]
    content_key = next((other for other in _CONTENTS.values() if other in node), _CONTENTS.get(name))
    content = node.get(content_key or "", node.get("content", {}))
    if isinstance(content, str):
        content = json.loads(content)
    if content_key == "featuresDict":
        for child, feature in content.get("features", content).items():
            yield from _leaves(feature, f"{key}/{child}" if key else child, sequences)
    elif content_key == "sequence":
        yield from _leaves(content["feature"], key, sequences + 1)
    else:
        yield _leaf(key, name, content_key, content, sequences)


def _leaf(key: str, name: str, content_key: str | None, content: Mapping[str, Any], sequences: int) -> Leaf:
    if content_key == "text":
        return Leaf(key, "text", "string", (), sequences)
    if content_key == "classLabel":
        return Leaf(key, "tensor", "int64", (), sequences)
    if content_key not in ("tensor", "image"):
        return Leaf(key, "other", name, (), sequences)
    shape = _shape(content.get("shape") or ())
    dtype = str(content.get("dtype") or "uint8")
    if content_key == "image":
        return Leaf(key, "image", dtype, shape, sequences)
    if dtype in _STRINGS:
        return (
            Leaf(key, "text", "string", shape, sequences) if not shape else Leaf(key, "other", name, shape, sequences)
        )
    if dtype not in _NUMBERS or sum(size is None for size in shape) > 1:
        return Leaf(key, "other", f"{dtype} of shape {shape}", shape, sequences)
    return Leaf(key, "tensor", dtype, shape, sequences, str(content.get("encoding") or "none").lower())


def _shape(given: Any) -> tuple[int | None, ...]:
    """`{"dimensions": ["8"]}`, or a list before tfds 4.6; -1 and null are sizes that are not fixed."""
    sizes = given.get("dimensions", ()) if isinstance(given, Mapping) else given
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)


def _stored(key: str, example: Mapping[str, Feature]) -> Feature:
    if key not in example:
        first = next(iter(example.values()), None)
        where = "an empty record" if first is None else first.what.rpartition(": ")[0]
        raise DataError(f"{where}: expected the key {key!r} as {FEATURES} says, got {sorted(example)}.")
    return example[key]

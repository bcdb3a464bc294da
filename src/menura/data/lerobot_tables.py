"""The Arrow tables of a LeRobotDataset v3.0, as its reader expects them: column types and schema metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from menura.data.encoding import ENCODERS
from menura.data.episode import Float32
from menura.data.lerobot_stats import FIELDS
from menura.data.readers.lerobot_meta import ACTION, DATA_PATH, OWN_KEY, STATE, VIDEO_PATH
from menura.data.rolling import FILES_PER_CHUNK
from menura.features import Features

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def feature_specs(features: Features, codec: str | None) -> dict[str, dict[str, Any]]:
    """`features` of `meta/info.json`; cameras are videos by `codec`, or images when it is None."""
    specs: dict[str, dict[str, Any]] = {}
    if features.state is not None and features.state.dim:
        specs[STATE] = {"dtype": "float32", "shape": [features.state.dim], "names": list(features.state.names)}
    specs[ACTION] = {"dtype": "float32", "shape": [features.action.dim], "names": list(features.action.names)}
    for name, camera in features.cameras.items():
        spec: dict[str, Any] = {
            "dtype": "image" if codec is None else "video",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
        if codec is not None:
            settings = ENCODERS[codec]
            spec["info"] = {
                "video.height": camera.height,
                "video.width": camera.width,
                "video.codec": settings.name,
                "video.pix_fmt": settings.pixels,
                "video.fps": whole(features.fps),
                "video.channels": 3,
                "has_audio": False,
                "is_depth_map": False,
            }
        specs[camera_key(name)] = spec
    for key, dtype in BOOKKEEPING.items():
        specs[key] = {"dtype": dtype, "shape": [1], "names": None}
    return specs


def info_json(
    specs: Mapping[str, Mapping[str, Any]], fps: float, robot: str | None, counts: Mapping[str, int]
) -> dict[str, Any]:
    """`meta/info.json`; `counts` of episodes, frames and tasks."""
    videos = any(spec["dtype"] == "video" for spec in specs.values())
    return {
        "codebase_version": "v3.0",
        "fps": whole(fps),
        "features": specs,
        "total_episodes": counts["episodes"],
        "total_frames": counts["frames"],
        "total_tasks": counts["tasks"],
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "robot_type": robot,
        "splits": {"train": f"0:{counts['episodes']}"},
    }


def numeric_keys(specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The features that are no cameras."""
    return [key for key, spec in specs.items() if spec["dtype"] not in ("video", "image")]


def camera_key(name: str) -> str:
    """The feature of a camera."""
    return f"observation.images.{name}"


def whole(fps: float) -> int | float:
    """LeRobot expects an integer rate where there is one."""
    return int(fps) if fps == int(fps) else fps


def data_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Of `data/**`: one row a frame; videos have no column."""
    fields: list[pa.Field] = []
    described: dict[str, Any] = {}
    for key, spec in features.items():
        dtype, shape = spec["dtype"], spec["shape"]
        if dtype == "video":
            continue
        if dtype == "image":
            fields.append(pa.field(key, _PICTURE))
            described[key] = {"_type": "Image"}
        elif list(shape) == [1]:
            fields.append(pa.field(key, pa.type_for_alias(dtype)))
            described[key] = {"dtype": dtype, "_type": "Value"}
        else:
            fields.append(pa.field(key, pa.list_(pa.field("element", pa.type_for_alias(dtype)), shape[0])))
            described[key] = {"feature": {"dtype": dtype, "_type": "Value"}, "length": shape[0], "_type": "List"}
    return pa.schema(fields, metadata={b"huggingface": json.dumps({"info": {"features": described}}).encode()})


def vector_column(rows: Float32, type_: pa.DataType) -> pa.Array:
    """(T, D) float32 as a column of `data_schema`."""
    flat = pa.array(rows.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=type_) if pa.types.is_fixed_size_list(type_) else flat


def picture_column(encoded: Sequence[bytes]) -> pa.Array:
    """Encoded frames as a column of `data_schema`."""
    paths = [f"frame-{number:06d}.png" for number in range(len(encoded))]
    return pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), pa.array(paths)], fields=list(_PICTURE))


def bookkeeping_columns(
    length: int, fps: float, episode: int, first: int, task_index: int
) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The five columns that every row has, (T,) each."""
    frames = np.arange(length, dtype=np.int64)
    return {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(length, episode, np.int64),
        "index": first + frames,
        "task_index": np.full(length, task_index, np.int64),
    }


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """`meta/tasks.parquet`: a pandas frame whose index is the task's text, in the order of `task_index`."""
    described = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], metadata={b"pandas": json.dumps(described).encode()}
    )
    return pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema)


def episodes_table(rows: Sequence[Mapping[str, Any]], features: Mapping[str, Mapping[str, Any]], own: Any) -> pa.Table:
    """One file of `meta/episodes/**`; `own` is kept as JSON in the schema's metadata, which LeRobot does not read."""
    integers = ("length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
    fields = [pa.field("episode_index", pa.int64()), pa.field("tasks", pa.list_(pa.string()))]
    fields += [pa.field(name, pa.int64()) for name in integers]
    for key, spec in features.items():
        if spec["dtype"] == "video":
            fields += [pa.field(f"videos/{key}/{name}", pa.int64()) for name in ("chunk_index", "file_index")]
            fields += [pa.field(f"videos/{key}/{name}", pa.float64()) for name in ("from_timestamp", "to_timestamp")]
    for key, spec in features.items():
        numbers = pa.list_(pa.float64())
        if spec["dtype"] in ("video", "image"):
            numbers = pa.list_(pa.list_(numbers))
        fields += [
            pa.field(f"stats/{key}/{name}", pa.list_(pa.int64()) if name == "count" else numbers) for name in FIELDS
        ]
    fields += [pa.field(f"meta/episodes/{name}", pa.int64()) for name in ("chunk_index", "file_index")]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(fields, metadata={OWN_KEY: json.dumps(own).encode()}))

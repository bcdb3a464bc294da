"""A message is understood exactly, or refused with the key, what was expected, and what came."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.data.pictures import encode_jpeg, encode_png
from menura.features import CameraFeature
from menura.meta_policy import MetaPolicy
from menura.serving.engine.cameras import CameraReader
from menura.serving.engine.errors import RequestRefused
from menura.serving.engine.keys import KeyMap
from menura.serving.engine.request import RequestReader


def reader_of(meta: MetaPolicy, max_image_pixels: int = 1 << 16) -> RequestReader:
    keys = KeyMap.of(meta.features).fitted(meta.features, meta.required_cameras)
    return RequestReader(meta, keys, max_image_pixels)


@pytest.fixture(scope="module")
def reader(sight: MetaPolicy) -> RequestReader:
    return reader_of(sight)


def images(top: Any, observed: Any) -> dict[str, Any]:
    """Both pictures, `top` being this one."""
    return {"images": {**observed()["images"], "top": top}}


def test_a_whole_message(reader: RequestReader, observed: Any) -> None:
    message = observed(
        reset=True, seed=3, deadline_ms=20, timestep=np.int64(7), prev_chunk=np.zeros((3, 2)), delay=2, observe=False
    )
    request = reader.read(message)
    assert request.is_ready
    observation = reader.observation(request)
    np.testing.assert_array_equal(observation["state"], message["state"])
    np.testing.assert_array_equal(observation["images"]["top"], message["images"]["top"])
    assert observation["task"] == message["prompt"]
    assert (request.reset, request.seed, request.timestep, request.observe) == (True, 3, 7, False)
    assert request.deadline_s == pytest.approx(0.02)
    assert request.previous is not None
    assert (request.previous.actions.shape, request.previous.delay) == ((3, 2), 2)
    assert not request.has_history


def test_lists_are_numbers_too(reader: RequestReader, observed: Any) -> None:
    request = reader.read(observed(state=[1, 2.5, -3]))
    assert request.observation is not None
    assert request.observation["state"].dtype == np.float32
    assert request.observation["state"].tolist() == [1.0, 2.5, -3.0]


def test_a_reset_alone_asks_for_nothing(reader: RequestReader) -> None:
    assert reader.read({"reset": True}).observation is None
    with pytest.raises(RequestRefused, match="state: expected the state"):
        reader.read({"reset": False})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": np.zeros(4)}, r"state: expected float32 \(3,\), got shape \(4,\)"),
        ({"state": np.zeros((1, 3))}, "without a batch axis"),
        ({"state": np.array([0, np.nan, 0])}, r"state: expected finite numbers, got nan at \[1\]"),
        ({"state": np.array([0, 0, 1e39])}, "state: expected finite numbers, got 1e"),
        ({"state": np.zeros(3, complex)}, "got complex128"),
        ({"state": np.array(["a", "b", "c"])}, "got <U1"),
        ({"state": np.array([None] * 3)}, "got object"),
        ({"state": [[1], [2, 3]]}, "got lists that are no array"),
        ({"state": "0 0 0"}, "got '0 0 0'"),
        ({"state": None}, "got NoneType"),
        ({"state": [10**400, 0, 0]}, "got object"),
        ({"prompt": 3}, "prompt: expected a text, got 3"),
        ({"prompt": "x" * 5000}, "prompt: expected at most 4096 characters, got 5000"),
        ({"task": "go", "prompt": "go"}, "prompt: expected it once, got it as task too"),
        ({"images": {"top": 1}}, r"images/top: expected uint8 \(16, 24, 3\), or the bytes of a JPEG or PNG, got 1"),
        ({"images": {}}, "images/top: expected this picture, got none"),
        ({"reset": "yes"}, "reset: expected true or false, got 'yes'"),
        ({"reset": 1}, "reset: expected true or false, got 1"),
        ({"seed": 1}, "seed: expected it with reset: true"),
        ({"reset": True, "seed": -1}, "seed: expected a whole number from 0"),
        ({"reset": True, "seed": 2**64}, "seed: expected a whole number from 0"),
        ({"deadline_ms": 0}, "deadline_ms: expected milliseconds above 0"),
        ({"deadline_ms": float("nan")}, "deadline_ms: expected milliseconds above 0"),
        ({"deadline_ms": 10**400}, "deadline_ms: expected milliseconds above 0"),
        ({"deadline_ms": True}, "deadline_ms: expected milliseconds above 0"),
        ({"timestep": -1}, "timestep: expected a whole number"),
        ({"timestep": 1.5}, "timestep: expected a whole number"),
        ({"delay": 1}, "delay: expected prev_chunk and delay together"),
        ({"prev_chunk": np.zeros((3, 2))}, "prev_chunk: expected prev_chunk and delay together"),
        (
            {"prev_chunk": np.zeros((3, 4)), "delay": 0},
            r"prev_chunk: expected float32 \(at most 4, 2\), got shape \(3, 4\)",
        ),
        ({"prev_chunk": np.zeros((5, 2)), "delay": 0}, r"prev_chunk: .* got shape \(5, 2\)"),
        ({"prev_chunk": np.full((3, 2), np.inf), "delay": 0}, "prev_chunk: expected finite"),
        ({"prev_chunk": np.zeros((3, 2)), "delay": 4}, "delay: expected a whole number from 0 to 3, got 4"),
        ({"observation_is_pad": [True]}, "observation_is_pad: expected"),
        ({"deadline": 5}, "deadline: expected one of"),
    ],
)
def test_what_is_wrong_is_said(
    change: dict[str, Any], said: str, reader: RequestReader, observed: Any, build_seeing: Any
) -> None:
    if "observation_is_pad" in change:
        reader = reader_of(build_seeing(n_obs_steps=2))
    with pytest.raises(RequestRefused, match=said):
        reader.read(observed(**change))


def test_an_instruction_that_is_missing(reader: RequestReader, observed: Any) -> None:
    message = observed()
    del message["prompt"]
    with pytest.raises(RequestRefused, match="task: expected the instruction"):
        reader.read(message)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((16, 24, 4), np.uint8), r"got shape \(16, 24, 4\)"),
        (np.zeros((16, 24), np.uint8), r"got uint8 \(16, 24\)"),
        (np.zeros((1, 16, 24, 3), np.uint8), r"got uint8 \(1, 16, 24, 3\)"),
        (np.zeros((16, 24, 3), np.int64), "got int64"),
        (np.full((16, 24, 3), 200.0), r"floats in \[0, 1\]"),
        (np.full((16, 24, 3), np.nan), r"floats in \[0, 1\]"),
        (np.zeros((0, 24, 3), np.uint8), "0 x 24"),
        (np.zeros((300, 450, 3), np.uint8), "1 to 65536 pixels, got 300 x 450"),
        (np.zeros((24, 24, 3), np.uint8), "of 16 x 24 pixels or of that aspect, got 24 x 24"),
        (np.zeros((3, 24, 3), np.uint8), r"got shape \(3, 24, 3\)"),
        ([b"a", b"b"], "one picture, got a list of 2"),
        (b"nothing", "a JPEG or a PNG"),
        (encode_png(np.zeros((24, 24, 3), np.uint8)), "of that aspect, got 24 x 24"),
        (encode_jpeg(np.zeros((300, 450, 3), np.uint8)), "1 to 65536 pixels, got 300 x 450"),
    ],
)
def test_wrong_pictures(picture: Any, said: str, reader: RequestReader, observed: Any) -> None:
    with pytest.raises(RequestRefused, match=f"images/top: expected.*{said}"):
        reader.observation(reader.read(observed(**images(picture, observed))))


def test_colours_first_and_floats_are_the_same_picture(reader: RequestReader, sight: MetaPolicy, observed: Any) -> None:
    top = observed()["images"]["top"]
    for form in (top, top.transpose(2, 0, 1), np.float32(top) / 255, encode_png(top)):
        read = reader.observation(reader.read(observed(**images(form, observed))))["images"]
        batch = {key: value[None] for key, value in read.items()}
        prepared = sight.processor.prepare({"state": np.zeros((1, 3)), "images": batch, "task": ["go"]})
        expected = sight.processor.prepare(
            {
                "state": np.zeros((1, 3)),
                "images": {key: value[None] for key, value in observed()["images"].items()},
                "task": ["go"],
            }
        )
        np.testing.assert_array_equal(prepared["image"], expected["image"])


def test_the_camera_s_size_says_which_colours_are_first() -> None:
    """A picture of three rows: its shape says nothing of where its colours are."""

    def read(camera: CameraFeature, *shape: int) -> tuple[int, ...]:
        content = CameraReader(camera, 1, "stretch", None, 100).read("top", np.zeros(shape, np.uint8)).content
        assert isinstance(content, np.ndarray)
        return content.shape

    assert read(CameraFeature(3, 5), 3, 5, 3) == (3, 5, 3)
    assert read(CameraFeature(5, 3), 3, 5, 3) == (5, 3, 3)
    for camera, shape in ((CameraFeature(3, 3), (3, 3, 3)), (CameraFeature(6, 10), (3, 5, 3))):
        with pytest.raises(RequestRefused, match="top: expected"):
            read(camera, *shape)


def test_other_sizes_of_the_same_aspect_are_resized_as_in_training(
    reader: RequestReader, build_seeing: Any, observed: Any
) -> None:
    for size in ((32, 48), (8, 12), (160, 240)):
        reader.read(observed(**images(np.zeros((*size, 3), np.uint8), observed)))
    padding = reader_of(build_seeing(resize="pad"))
    padding.read(observed(**images(np.zeros((50, 50, 3), np.uint8), observed)))  # keeps its aspect, between borders


def test_a_time_axis_belongs_to_all_or_none(build_seeing: Any, observed: Any) -> None:
    reader = reader_of(build_seeing(n_obs_steps=2))
    message = observed()
    both = {camera: np.stack([image] * 2) for camera, image in message["images"].items()}
    whole = {"state": np.stack([message["state"]] * 2), "images": both, "prompt": "go"}
    assert reader.read(whole).has_history
    assert reader.read(whole | {"observation_is_pad": np.array([True, False])}).has_history
    encoded = {camera: [encode_png(frame) for frame in frames] for camera, frames in both.items()}
    read = reader.observation(reader.read(whole | {"images": encoded}))
    np.testing.assert_array_equal(read["images"]["top"], both["top"])
    with pytest.raises(RequestRefused, match="state: expected a time axis of 2, as images/top has"):
        reader.read(whole | {"state": message["state"]})
    with pytest.raises(RequestRefused, match=re.escape("state: expected float32 (3,), or (2, 3) with a time axis")):
        reader.read(whole | {"state": np.zeros((3, 3))})
    with pytest.raises(RequestRefused, match="observation_is_pad: expected observations with a time axis"):
        reader.read(message | {"observation_is_pad": [True, False]})


def test_cameras_that_the_policy_does_not_use_are_not_looked_at(build_seeing: Any, observed: Any) -> None:
    meta = build_seeing()
    meta.processor.settings = type(meta.processor.settings)(
        **{**vars(meta.processor.settings), "camera_names": ("top",)}
    )
    reader = reader_of(meta)
    message = observed()
    message["images"]["wrist"] = b"whatever"
    assert list(reader.observation(reader.read(message))["images"]) == ["top"]


@given(state=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_numbers_arrive_as_they_were_sent(state: list[float], reader: RequestReader, observed: Any) -> None:
    for sent in (state, np.array(state), np.array(state, ">f8"), np.array(state, np.float32)):
        request = reader.read(observed(state=sent))
        assert request.observation is not None
        np.testing.assert_array_equal(request.observation["state"], np.array(state, np.float32))


def test_a_policy_that_looks_at_the_step_is_told_it(build_seeing: Any, observed: Any) -> None:
    """Without it such a policy would take every observation for the first."""
    meta = build_seeing()

    class Stepping(type(meta.policy)):  # type: ignore[misc]
        def forward(self, state: Any, timestep: Any = None) -> Any:
            raise NotImplementedError("it is only asked")

    meta.policy.__class__ = Stepping
    reader = reader_of(meta)
    with pytest.raises(RequestRefused, match="timestep: expected the step of the episode"):
        reader.read(observed())
    assert reader.read(observed(timestep=3)).timestep == 3

"""`menura-client` is made of menura's own files, holds nothing else, and needs three packages."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import menura
from menura.meta_policy import MetaPolicy
from menura.serving.background import serving
from menura.serving.server import PolicyServer

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages" / "menura-client"
SHARED = {
    *("errors.py", "py.typed", "serving/__init__.py", "serving/client.py"),
    *("serving/codec.py", "serving/connection.py", "serving/line.py"),
}
MODULES = {"menura_client/__init__.py", *(f"menura_client/{name}" for name in SHARED)}
#: What a robot's program does: state, picture, text; the answer's dtype and the numpy it was read by.
ASKING = """
import sys
import numpy as np
from menura_client import Client, RequestRefused, __version__
heavy = {"menura", "torch", "scipy", "pydantic", "aiohttp"} & set(sys.modules)
assert not heavy, heavy
with Client(sys.argv[1]) as client:
    state = np.array([0.1, -0.2, 0.3], np.float32)
    answer = client.infer({"state": state, "task": "go"}, reset=True, deadline_ms=20_000)
    assert answer["actions"].dtype == np.float32, answer["actions"].dtype
    assert client.prefetch({"state": state, "task": "go"}).result(20)["actions"].shape == (4, 2)
    try:
        client.infer({"state": state[:2], "task": "go"})
    except RequestRefused:
        pass
    else:
        raise SystemExit("a wrong state was not refused")
    print(np.__version__, *answer["actions"].ravel().tolist())
"""


def project(path: Path) -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # not in Python 3.10
    return dict(tomllib.loads(path.read_text())["project"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution, made without a network."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True)
    return next(directory.glob("*.whl")), next(directory.glob("*.tar.gz"))


def test_it_says_what_it_needs() -> None:
    said, whole = project(PACKAGE / "pyproject.toml"), project(ROOT / "pyproject.toml")
    assert said["version"] == whole["version"] == menura.__version__
    assert [text.split(">")[0] for text in said["dependencies"]] == ["numpy", "msgpack", "websockets"]
    assert set(said["dependencies"][1:]) <= set(whole["dependencies"])
    assert f'__version__ = "{said["version"]}"' in (PACKAGE / "menura_client" / "__init__.py").read_text()


def test_the_wheel_holds_menuras_own_files_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == MODULES
        for name in SHARED:
            assert wheel.read(f"menura_client/{name}") == (ROOT / "src" / "menura" / name).read_bytes()
        metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        assert "menura serve" in wheel.read(metadata).decode()


def test_the_source_distribution_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as source:
        source.extractall(tmp_path)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=next(tmp_path.glob("menura_client-*")), check=True, capture_output=True)
    assert next(tmp_path.glob("*.whl")).read_bytes() == built[0].read_bytes()


def test_it_is_imported_with_its_three_packages_alone(
    built: tuple[Path, Path], tmp_path: Path, meta: MetaPolicy
) -> None:
    for package in ("numpy", "msgpack", "websockets"):
        installed = Path(__import__(package).__file__ or "").parent
        (tmp_path / package).symlink_to(installed)
        if (libraries := installed.parent / f"{package}.libs").exists():
            (tmp_path / libraries.name).symlink_to(libraries)
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{ASKING}"
    check_answer(meta, [sys.executable, "-I", "-S", "-c", code])


@pytest.mark.slow
@pytest.mark.parametrize("numpy", ["numpy==1.26.4", "numpy>=2"])
def test_it_is_installed_with_either_numpy(
    built: tuple[Path, Path], tmp_path: Path, meta: MetaPolicy, numpy: str
) -> None:
    if numpy.startswith("numpy==1") and sys.version_info >= (3, 13):
        pytest.skip("numpy 1 was not built for this Python")
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(built[0]), numpy], check=True)
    version = check_answer(meta, [python, "-I", "-c", ASKING])
    assert version[0] == ("1" if numpy.startswith("numpy==1") else "2")


def check_answer(meta: MetaPolicy, command: list[str]) -> str:
    """What the program that asks was answered is what the policy answers; the version of its numpy."""
    with serving(PolicyServer(meta, port=0)) as server:
        command = [*command, f"ws://127.0.0.1:{server.port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    version, *actions = done.stdout.split()
    expected = meta.predict({"state": np.array([[0.1, -0.2, 0.3]], np.float32), "task": ["go"]})[0]
    np.testing.assert_array_equal(np.array([float(action) for action in actions], np.float32), expected.ravel())
    return version

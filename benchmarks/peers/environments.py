"""The peers of `bench.py`: what is installed for each, in an environment of its own, and how it is called.

The environments lie in `benchmarks/.peers/`, are made once, and are the only place that says versions.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers"
OURS = ("pydantic", "pyyaml", "safetensors")
"""What importing the network of tilesseg needs."""
FILES = ("tifffile", "imagecodecs")


@dataclass(frozen=True)
class Environment:
    """One virtual environment."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return PEERS / self.name

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def make(self) -> str | None:
        """Build it unless it is there; says what failed, in one line."""
        stamp = self.folder / "made.json"
        wanted = hashlib.sha256(json.dumps(self.packages).encode()).hexdigest()
        if stamp.exists() and json.loads(stamp.read_text())["wanted"] == wanted:
            return None
        print(f"making the environment {self.folder}, a download of gigabytes", flush=True)
        steps = (
            [sys.executable, "-m", "venv", str(self.folder)],
            [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.packages],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
                return f"not installed: {lines[-1][:160] if lines else done.returncode}"
        stamp.write_text(json.dumps({"wanted": wanted, "versions": self._versions()}, indent=1))
        return None

    def versions(self) -> dict[str, str]:
        """Of what was installed, by name."""
        stamp = self.folder / "made.json"
        return dict(json.loads(stamp.read_text())["versions"]) if stamp.exists() else {}

    def _versions(self) -> dict[str, str]:
        listed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = {package.partition("=")[0].partition("<")[0].lower() for package in self.packages}
        return {one["name"]: one["version"] for one in json.loads(listed.stdout) if one["name"].lower() in wanted}


ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment("monai", ("torch==2.14.1", "monai==1.6.1", "numpy", *FILES, *OURS)),
        # ^ the newest torch that each peer allows
        Environment("tiatoolbox", ("torch<2.13", "torchvision<0.28", "tiatoolbox==2.1.3", *FILES, *OURS)),
        Environment("geo-inference", ("torch==2.14.1", "torchvision==0.29.1", "geo-inference==3.2.4")),
    )
}


@dataclass(frozen=True)
class Peer:
    """A way of calling a tool; `script` takes image, bundle, TorchScript file, mask, and `options`."""

    tool: str
    environment: str
    script: str
    precision: str
    options: tuple[str, ...] = ()
    patch: int = 512
    stride: int = 384
    on_earth: bool = False
    """Whether it takes only images that have a place there."""

    @property
    def work_factor(self) -> float:
        """Predicted pixels ÷ pixels of the image, without the overhang at its edges."""
        return (self.patch / self.stride) ** 2

    def command(self, image: Path, model: Path, mask: Path) -> list[str]:
        script = HERE / "scripts" / self.script
        network = model / "network.ts"
        return [ENVIRONMENTS[self.environment].python, *map(str, (script, image, model, network, mask)), *self.options]


def peers(*, bf16: bool) -> list[Peer]:
    """MONAI as its documentation calls it and tuned by hand, TIAToolbox, geo-inference; `bf16`: the machine's own."""
    fast = "bf16" if bf16 else "fp32"
    return [
        Peer("MONAI as documented", "monai", "monai_window.py", "fp32"),
        Peer("MONAI tuned by hand", "monai", "monai_window.py", fast, ("--tuned", fast)),
        Peer("TIAToolbox", "tiatoolbox", "tiatoolbox_segmentor.py", "fp32"),
        Peer("geo-inference", "geo-inference", "geo_inference_job.py", "fp32", patch=1024, stride=512, on_earth=True),
    ]

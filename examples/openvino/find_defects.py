"""Find defects in images with an exported folder of OpenVINO, on a processor, a GPU, or an NPU of Intel.

    python find_defects.py RUN/deploy/student_openvino_model IMAGE_OR_FOLDER ... [--conf 0.25] [--device CPU] [--exact]

Needs numpy, onnxruntime, openvino, pillow, and PyYAML. All but the network is that of the ``infer.py`` beside the
folder, in the ``deploy/`` that it comes from: it prints the same, and has the same exit codes. AGPL-3.0.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

sys.modules.setdefault("openvino_telemetry", None)  # else OpenVINO reports to its maker on import
import openvino  # noqa: E402


def main() -> int:
    """Find defects with a folder of OpenVINO, as ``infer.py`` does with an ONNX file."""
    parser = argparse.ArgumentParser(description="Find defects in images with a folder of OpenVINO.")
    parser.add_argument("model", type=Path, help="the folder, in the deploy/ that it comes from")
    parser.add_argument("source", nargs="+", type=Path, help="images and folders")
    parser.add_argument("--conf", type=float, help="lowest score, instead of those in the folder")
    parser.add_argument("--device", default="CPU", help="CPU, GPU, or NPU")
    parser.add_argument("--exact", action="store_true", help="32 bits, where the device would compute with fewer")
    given = parser.parse_args()
    sys.path.insert(0, str(given.model.resolve().parent))
    import infer

    class Detector(infer.Detector):
        """The same with another runtime: what the ONNX file says there, ``metadata.yaml`` says here."""

        def __init__(self, folder: Path, device: str, exact: bool) -> None:
            about = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
            self.names, self.facts, self.fixed = about["names"], about["dfssd"], True
            own = self.facts.get("thresholds", {})
            self.thresholds = np.array([own.get(name, infer.CONFIDENCE) for name in self.names.values()], np.float32)
            (self.height, self.width), self.stride = about["imgsz"], about["stride"]
            hints = {"PERFORMANCE_HINT": "LATENCY"}  # for one image after another; THROUGHPUT: for many at once
            hints |= {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
            self.network = openvino.Core().compile_model(next(folder.glob("*.xml")), device, hints)

        def __call__(self, images: Sequence[np.ndarray], conf: float | None = None) -> list[np.ndarray]:
            return [self.boxes(self.raw(image), image, conf) for image in images]

        def raw(self, image: np.ndarray) -> np.ndarray:
            pixels = infer.letterbox(image, self.height, self.width).transpose(2, 0, 1)[None]
            return self.network(pixels.astype(np.float32) / np.float32(255))[self.network.output(0)][0]

    words = [*map(str, given.source), "--model", str(given.model)]
    words += [] if given.conf is None else ["--conf", str(given.conf)]
    return infer.main(words, lambda folder: Detector(folder, given.device, given.exact))


if __name__ == "__main__":
    sys.exit(main())

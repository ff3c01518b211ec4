"""The section of a report on how the files of a detector are used."""

from __future__ import annotations

from dfssd.detection.run_files import DetectionFiles
from dfssd.reporting.sections import Lines


def usage_section(run: DetectionFiles) -> Lines:
    """Command lines for prediction, validation, and further formats."""
    export, student = run.record.export, run.record.test.get("student")
    imgsz = export.input[-1] if export and export.input else run.imgsz
    confidence = max(0.01, (student.confidence if student else None) or 0.25)
    return [
        "## How to use the files",
        "",
        "The files are plain Ultralytics and ONNX; they do not need this program. In this folder, with `pip install "
        "ultralytics onnxruntime`:",
        "",
        "```",
        f"yolo predict model=weights/student.pt source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo predict model=weights/student.onnx source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo val model=weights/student.pt data=splits/data.yaml split=test imgsz={imgsz}",
        f"yolo export model=weights/student.pt format=openvino imgsz={imgsz}   # or engine, coreml, ncnn, ...",
        "```",
        "",
        "`conf` is the score from which a box is reported: a lower one finds more defects and raises more false "
        "alarms. The value above balances the two on the validation images. Ultralytics and what is trained with it "
        "are under AGPL-3.0.",
    ]

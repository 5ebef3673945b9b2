"""Draw polygons with OpenCV, for the test that compares ours with them: tests/data/formats/opencv_polygons.json.

    pip install opencv-python-headless==4.8.0.76 "numpy<2" pycocotools
    python examples/lab/opencv_polygons.py

The file holds random polygons, thin and crossing ones among them, and annotations painted by the rules of ReasonSeg.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

FILE = Path(__file__).parents[2] / "tests" / "data" / "formats" / "opencv_polygons.json"
SIZE = (48, 64)


def drawn(canvas: np.ndarray, points: list[list[float]], value: int) -> np.ndarray:
    """A polygon drawn on a canvas: its outline, and what is inside."""
    corners = np.array([points], dtype=np.int32)
    cv2.polylines(canvas, corners, True, value, 1)  # noqa: FBT003 - OpenCV's own signature
    cv2.fillPoly(canvas, corners, value)
    return canvas


def counts(mask: np.ndarray) -> str:
    """COCO's compressed run lengths of a mask."""
    return str(coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode())


def random_points(rng: np.random.Generator, most: int) -> list[list[float]]:
    """Points in the image, some of them whole."""
    points = rng.uniform(0, 1, (int(rng.integers(1, most)), 2)) * (SIZE[1] - 1, SIZE[0] - 1)
    return [[round(float(value), int(rng.integers(0, 3))) for value in point] for point in points]


def annotation(rng: np.random.Generator) -> dict[str, Any]:
    """Some shapes, painted by their areas on one canvas: 1 is the target, 255 is ignored."""
    labels = rng.choice(["target", "ignore", "ignored later", "flag", "Chair"], int(rng.integers(1, 7)))
    shapes = [{"label": str(label), "points": random_points(rng, 9)} for label in labels]
    kept = [shape for shape in shapes if shape["label"] != "flag"]
    areas = [drawn(np.zeros(SIZE, np.uint8), shape["points"], 1).sum() for shape in kept]
    canvas = np.zeros(SIZE, np.uint8)
    for index in np.argsort(areas)[::-1].astype(int):
        drawn(canvas, kept[index]["points"], 255 if "ignore" in kept[index]["label"] else 1)
    return {"shapes": shapes, "target": counts(canvas == 1), "ignored": counts(canvas == 255)}


def main() -> None:
    """Draw everything and write the file."""
    rng = np.random.default_rng(0)
    polygons = [random_points(rng, most) for most in (2, 3, 4, 5, 9, 30) for _ in range(10)]
    content = {
        "made by": f"OpenCV {cv2.__version__}, examples/lab/opencv_polygons.py",
        "size": SIZE,
        "polygons": [
            {"points": points, "counts": counts(drawn(np.zeros(SIZE, np.uint8), points, 1))} for points in polygons
        ],
        "annotations": [annotation(rng) for _ in range(20)],
    }
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

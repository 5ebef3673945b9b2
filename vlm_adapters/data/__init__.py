"""Data sets: images, sentences, and phrases with masks.

The names below are public. Modules under `vlm_adapters.data.formats` describe the formats that `open_dataset` reads.
"""

from vlm_adapters.data.check import DataReport, check_dataset
from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.dataset import Dataset, Problem, Subset, read_samples
from vlm_adapters.data.fiftyone import to_fiftyone
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.hugging_face import from_datasets, to_datasets
from vlm_adapters.data.open import DatasetSource, open_dataset, open_skipping
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.template import write_template

__all__ = [
    "HELD_OUT_SEED",
    "Annotation",
    "DataReport",
    "Dataset",
    "DatasetSource",
    "HardScenes",
    "Problem",
    "Sample",
    "Scenes",
    "Subset",
    "check_dataset",
    "from_datasets",
    "open_dataset",
    "open_skipping",
    "read_samples",
    "to_datasets",
    "to_fiftyone",
    "write_folder",
    "write_template",
]

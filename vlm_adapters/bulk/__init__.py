"""Many images: tasks over a folder, a JSONL file or a data set, into shards, and as callables for Ray Data."""

from vlm_adapters.bulk.attend import Attend
from vlm_adapters.bulk.extract import Extract
from vlm_adapters.bulk.formats import FailedItem, Item
from vlm_adapters.bulk.ground import Ground
from vlm_adapters.bulk.processes import BulkProgress, ShardWorker, run_bulk
from vlm_adapters.bulk.prompts import PromptSource, open_prompts, prompt_of
from vlm_adapters.bulk.run import BulkRun, BulkSettings
from vlm_adapters.bulk.shards import BulkIndex, read_results
from vlm_adapters.bulk.task import Task

__all__ = [
    "Attend",
    "BulkIndex",
    "BulkProgress",
    "BulkRun",
    "BulkSettings",
    "Extract",
    "FailedItem",
    "Ground",
    "Item",
    "PromptSource",
    "ShardWorker",
    "Task",
    "open_prompts",
    "prompt_of",
    "read_results",
    "run_bulk",
]

"""Run parts of the library as on an accelerator, on a machine without one: a script, for it changes torch for good.

    python pretend_device.py suite NAME ... | chain MODEL ...

Tensors "on" the device `pretend` are kept on the CPU, and whatever torch would refuse to do with tensors of two
devices is an error here, too. The arithmetic is the CPU's; that of a real device is tested by
`examples/lab/gpu_check.py`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}  # noqa: SLF001 - operations have no other name
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,  # noqa: SLF001
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class MixedDevicesError(Exception):
    """No kind of error that anybody catches."""


class Away(Tensor):
    """A tensor that says it is on the device, and keeps its values in `here`."""

    here: Tensor

    @staticmethod
    def __new__(cls: Any, here: Tensor) -> Any:
        made: Any = Tensor._make_wrapper_subclass(  # noqa: SLF001
            cls, here.size(), here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise MixedDevicesError("numpy() of a tensor on the device")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise MixedDevicesError("a NumPy array of a tensor on the device")

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.here})"

    def untyped_storage(self) -> Any:
        return self.here.untyped_storage()


def perform(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation that has to do with the device."""
    check_devices(func, args, kwargs)
    asked = kwargs.get("device")
    if asked is not None:
        away, kwargs = on_device(asked), kwargs | {"device": torch.device("cpu")}
    elif func in COPIES or func in INDEXING:
        away = isinstance(args[0], Away)
    else:
        away = any(isinstance(tensor, Away) for tensor in tree_leaves((args, kwargs)))
    inner_args, inner_kwargs = tree_map_only(Away, lambda tensor: tensor.here, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)
    if away:
        result = tree_map_only(Tensor, Away, result)
    if func is aten.copy_.default:
        return args[0]
    if func._schema.is_mutable or (away and func not in COPIES):  # noqa: SLF001
        return return_and_correct_aliasing(func, args, kwargs, result)
    return result


def check_devices(func: Any, args: Any, kwargs: Any) -> None:
    """Refuse what torch refuses: only copies, indices on the CPU and single numbers may be elsewhere."""
    if func in COPIES:
        return
    tensors = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
    if func in INDEXING:
        tensors = [args[0], *(tensor for tensor in tensors[1:] if isinstance(tensor, Away)), *args[2:3]]
    joins = func in (aten.cat.default, aten.stack.default)
    here = [tensor for tensor in tensors if not isinstance(tensor, Away) and (tensor.ndim or joins)]
    if here and len(here) < len(tensors) and any(isinstance(tensor, Away) for tensor in tensors):
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise MixedDevicesError(f"{func}: {shapes}")


def on_device(device: Any) -> bool:
    return torch.device(device).type == DEVICE.type


class Operations(TorchDispatchMode):
    """Sees what makes tensors on the device, and what moves them there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        away = any(isinstance(tensor, Away) for tensor in tree_leaves((args, kwargs)))
        asked = kwargs.get("device")
        return perform(func, args, kwargs) if away or (asked and on_device(asked)) else func(*args, **kwargs)


class Functions(TorchFunctionMode):
    """Sees what torch does below operations: tensors and indices made of lists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None and on_device(kwargs["device"]):
            del kwargs["device"]
            return func(*tree_map_only(Away, Tensor.item, args), **kwargs).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], Away):
            return torch.tensor(args[1], dtype=args[0].dtype).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Away):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            placed = tuple(torch.tensor(part).long() if isinstance(part, list) else part for part in index)
            args = (args[0], placed, *args[2:])
        return func(*args, **kwargs)


class Module(backend_registration._DummyBackendModule):  # noqa: SLF001
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("pretend", backend_module=Module())  # noqa: SLF001
DEVICE = torch.device("pretend", 0)


@contextmanager
def accelerated() -> Iterator[None]:
    """Within, torch has the device, in the threads of pools as well."""
    submit = ThreadPoolExecutor.submit

    def submit_accelerated(pool: Any, function: Any, *arguments: Any) -> Any:
        def run() -> Any:
            with Functions(), Operations():
                return function(*arguments)

        return submit(pool, run)

    with patch.object(ThreadPoolExecutor, "submit", submit_accelerated), Functions(), Operations():
        yield


def run_suite(names: Sequence[str]) -> None:
    """Run the conformance suite on the device; what is started elsewhere does not see it."""
    from vlm_adapters.testing import ALL_CHECKS, run_checks  # noqa: PLC0415
    from vlm_adapters.testing.lookup import find_case  # noqa: PLC0415

    elsewhere = ("check_spawned_process", "check_threads")
    checks = [check for check in ALL_CHECKS if check.__name__ not in elsewhere]
    for name in names:
        with accelerated():
            results = run_checks(find_case(name).on(str(DEVICE), torch.float32), checks)
        for result in results:
            print(name, result.check, result.state, result.reason.replace("\n", " "))  # noqa: T201


def run_chain(models: Sequence[str]) -> None:
    """Ground, refine, evaluate, choose heads, train and save with everything on the device."""
    from vlm_adapters import GroundedVLM, load_adapter  # noqa: PLC0415
    from vlm_adapters.data.formats.scenes import Scenes  # noqa: PLC0415
    from vlm_adapters.evaluation.run import Evaluation  # noqa: PLC0415
    from vlm_adapters.grounding import HeadGrounder  # noqa: PLC0415
    from vlm_adapters.heads.calibrate import CalibrationSet, calibrate  # noqa: PLC0415

    for model in models:
        adapter: Any = load_adapter(model, device="cpu")
        with accelerated():
            adapter.model.to(DEVICE)
            vlm = GroundedVLM.from_pretrained(model, adapter=adapter)
            assert vlm.decoder.unet.head.weight.device == DEVICE
            scenes = Scenes(4, seed=9)
            found = vlm.ground_all([scene.prompt for scene in scenes])
            profile = calibrate(adapter, CalibrationSet.of_scenes(scenes, 9, labelled=True), most=2)
            for sam in (None, small_sam().to(DEVICE)):
                HeadGrounder(adapter, profile, sam).ground_all([scene.prompt for scene in scenes])
            refined = with_refiner(vlm, small_sam().to(DEVICE))
            for protocol in ("isolated", "packed"):
                Evaluation(refined, scenes, protocol, 2).batch(0)
            train_once(refined, scenes)
        expected = GroundedVLM.from_pretrained(model, device="cpu").ground_all([scene.prompt for scene in scenes])
        masks = [[phrase.mask.tolist() for grounding in of for phrase in grounding.phrases] for of in (found, expected)]
        print(model, "the same masks" if masks[0] == masks[1] else "other masks")  # noqa: T201


def small_sam() -> Any:
    from segment_anything.modeling import (  # noqa: PLC0415
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    from vlm_adapters.decoder.sam.model import SegmentAnything  # noqa: PLC0415

    encoder = ImageEncoderViT(img_size=96, embed_dim=16, depth=1, num_heads=2, out_chans=16, use_rel_pos=True)
    transformer = TwoWayTransformer(depth=2, embedding_dim=16, num_heads=2, mlp_dim=32)
    decoder = MaskDecoder(transformer_dim=16, transformer=transformer, iou_head_hidden_dim=16)
    return SegmentAnything(Sam(encoder, PromptEncoder(16, (6, 6), (96, 96), 16), decoder))


def with_refiner(vlm: Any, sam: Any) -> Any:
    from vlm_adapters import GroundedVLM  # noqa: PLC0415
    from vlm_adapters.decoder import MaskDecoder, PresenceHead, SAMRefiner  # noqa: PLC0415

    refiner = SAMRefiner.of(sam, vlm.adapter.info).to(DEVICE)
    presence = PresenceHead.of(vlm.adapter.info, vlm.decoder.unet.config.channels).to(DEVICE)
    return GroundedVLM(vlm.adapter, MaskDecoder(vlm.decoder.unet, vlm.decoder.request, refiner, presence))


def train_once(vlm: Any, scenes: Any) -> None:

    from vlm_adapters.decoder import decoder_loss  # noqa: PLC0415
    from vlm_adapters.training.cache.fingerprint import CacheFingerprint  # noqa: PLC0415
    from vlm_adapters.training.samples import LiveSamples  # noqa: PLC0415

    decoder = vlm.decoder
    data, sam = "scenes:count=2,seed=9", decoder.refiner.sam
    fingerprint = CacheFingerprint.of(vlm.adapter, data, decoder.request, sam, "float16")
    samples = LiveSamples(vlm.adapter, scenes, fingerprint, sam).read([0, 1])
    assert {sample.features.maps.device.type for sample in samples} == {"cpu"}
    weights = decoder.trainable_parameters().values()
    optimizer = torch.optim.AdamW(weights)
    found = decoder([sample.features for sample in samples], [sample.image for sample in samples])
    decoder_loss(found, [sample.masks for sample in samples]).backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        decoder.save(Path(folder) / "decoder", fingerprint.backbone)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"suite": run_suite, "chain": run_chain}[sys.argv[1]](sys.argv[2:])

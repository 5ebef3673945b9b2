"""A decoder's way to the hub: its files and a model card, in one commit."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from vlm_adapters.decoder.checkpoint import CONFIG_FILE, DecoderCheckpoint, DecoderConfig
from vlm_adapters.decoder.download import sharing_fault
from vlm_adapters.decoder.model_card import CARD_FILE, Measured, model_card
from vlm_adapters.errors import OptionError, OutputError
from vlm_adapters.limits import shown
from vlm_adapters.registry.hub import hub_reason, is_hub_id

_PULL_REQUEST = "refs/pr/"


def push_decoder(  # noqa: PLR0913 - what huggingface_hub takes
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    evaluation: str | os.PathLike[str] | None = None,
    license: str | None = None,  # noqa: A002 - huggingface_hub's name
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a mask decoder",
    token: str | bool | None = None,
) -> str:
    """Upload a decoder's folder: its config, its weights, and a model card in the place of any `README.md`.

    Nothing else of the folder is uploaded. Weights in the repository that no longer belong to the decoder are deleted.

    Args:
        folder: Written by `GroundedVLM.save_pretrained` or by a training.
        repo_id: Hub id, `owner/name`; the repository is made if it is not there.
        evaluation: Folder that `adapters evaluate` wrote for this decoder, whose card and numbers become part of the
            model card. None takes the decoder's folder, if it has a `card.json`.
        license: Identifier of a licence, such as `"apache-2.0"`; None names none.
        private: Whether a repository that is made is private; None leaves it to the hub.
        revision: Branch, which is made if it is not there; None for the main one.
        commit_message: Message of the commit.
        token: Access token; None for the one of `hf auth login` or of the variable `HF_TOKEN`.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The folder holds no decoder, or the evaluation's folder no evaluation.
        OptionError: The id is none, the backbone is a folder, which nobody else has, or the evaluation is of another
            decoder.
        OutputError: The hub does not take it.
    """
    folder = Path(folder)
    if not is_hub_id(repo_id):
        raise OptionError(f"{shown(repo_id, 200)} is not a hub id. Give owner/name.")
    checkpoint = DecoderCheckpoint.read(folder)
    if fault := sharing_fault(checkpoint.config.backbone):
        raise OptionError(
            f"The decoder in {folder} cannot be used elsewhere: its backbone {fault}. Write the backbone's id on the "
            f"hub as backbone.checkpoint into {CONFIG_FILE} of a decoder's folder, and push that folder."
        )
    if evaluation is None and (folder / CARD_FILE).is_file():
        evaluation = folder
    with TemporaryDirectory() as temporary:
        written = Path(temporary)
        checkpoint.write(written)
        config = DecoderConfig.read(written / CONFIG_FILE)
        measured = None if evaluation is None else Measured.read(Path(evaluation), config)
        card = model_card(config, repo_id, measured, license)
        (written / "README.md").write_text(str(card), encoding="utf-8")
        return _upload(written, repo_id, {"token": token, "revision": revision}, private, commit_message)


def _upload(folder: Path, repo_id: str, hub: dict[str, Any], private: bool | None, message: str) -> str:  # noqa: FBT001
    api, revision = HfApi(token=hub["token"]), hub["revision"]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith(_PULL_REQUEST):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            delete_patterns=["*.safetensors"],
        )
    except Exception as error:
        raise OutputError(
            f"The decoder cannot be pushed to {repo_id}: {hub_reason(error, hub, 'such file').rstrip('.')}. The folder "
            "is as it was: push it again once that is mended."
        ) from error
    return str(commit.commit_url)

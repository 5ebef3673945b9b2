"""What is trained on hard scenes: a stock model, and temporary heads over its hidden states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from dense_labels import BINS, WORDS, DenseHead, VisionBatch, place_loss
from fast_attention import attend_answers, attend_question
from safetensors.torch import load_file, save_file
from text_batches import IGNORED, TextBatch
from tiny_family import TinyFamily
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from teacher import Teacher

WHERE_WIDTH = 64
LONGEST = 160
"""Tokens of a text, at most."""
EARLY = (2, 4)
"""After how many layers of the language model a phrase already looks where it refers to: the others can use it."""
ANSWERING = 2.0
"""Weight of what answers questions: far less can be learned from descriptions, whose next word is often open."""
OF_THINGS = [len(words) for words in WORDS.values()]


class WhereHead(nn.Module):
    """Says at which image tokens a phrase looks, and where a relation starts from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, 2 * WHERE_WIDTH), nn.Linear(2 * width, 2 * WHERE_WIDTH)
        self.bias = nn.Parameter(torch.full((2,), -2.0))

    def forward(
        self, referring: Tensor, image: Tensor, features: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Logits `(M, h * w)` of both, of hidden states `(M, D)`; so many are about each of images `(B, h * w, D)`."""
        seen = torch.cat([features.to(image.dtype), F.layer_norm(image.float(), image.shape[-1:]).to(image.dtype)], -1)
        states = F.layer_norm(referring.float(), referring.shape[-1:])
        keys = self.key(seen).float().unflatten(-1, (2, -1)).permute(0, 2, 3, 1) / math.sqrt(WHERE_WIDTH)
        queries = self.query(states).float().unflatten(-1, (2, -1)).transpose(0, 1)
        of_images = queries.split(counts, 1)
        logits = torch.cat([torch.bmm(some, key) for some, key in zip(of_images, keys, strict=True)], 1)
        where, anchor = logits + self.bias[:, None, None]
        return where, anchor


def where_losses(where: Tensor, anchor: Tensor, batch: TextBatch) -> dict[str, Tensor]:
    """How far logits are from the cells that phrases refer to, and from those of their relations' other ends."""
    cells, anchored = batch.cells, batch.anchors[:, 0] != IGNORED
    found = where.sigmoid()
    dice = 1 - (2 * (found * cells).sum(1) + 1) / (found.sum(1) + cells.sum(1) + 1)
    of_anchors = F.binary_cross_entropy_with_logits(anchor, batch.anchors, anchored[:, None].float())
    return {
        "where": 4 * F.binary_cross_entropy_with_logits(where, cells) + dice.mean(),
        "anchor": 2 * of_anchors / anchored.float().mean().clamp(min=0.01),
    }


class Trainee(nn.Module):
    """The stock model and the temporary heads."""

    def __init__(self, family: TinyFamily, model: PreTrainedModel) -> None:
        super().__init__()
        self.family, self.model = family, model
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.dense = DenseHead(family.vision_width)
        self.places = nn.ModuleList(WhereHead(family.vision_width) for _ in (*EARLY, "at the end"))
        self.own_place = nn.Linear(family.vision_width, 2 * BINS)
        self.presence = nn.Linear(family.vision_width, 1)
        self.attributes = nn.Linear(family.vision_width, sum(OF_THINGS))

    @classmethod
    def finished(cls, family: TinyFamily, file: Path) -> Self:
        """One whose finished weights are kept in a file."""
        trainee = cls(family, family.build_model())
        trainee.load_state_dict(load_file(file))
        return trainee

    def save(self, file: Path) -> None:
        """Keep the weights in half precision."""
        save_file({name: weight.half().clone() for name, weight in self.state_dict().items()}, file)

    def see(self, pixels: Tensor) -> Tensor:
        """Image features `(B, h * w, D)` of images `(B, 3, H, W)` uint8."""
        return self.family.see(self.model, self.family.normalise(pixels))

    def vision_losses(self, batch: VisionBatch, teacher: Teacher | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch of images, and figures to watch."""
        features = self.see(batch.pixels)
        loss, right = self.dense.losses(features, batch)
        watched = {"loss": loss, "shapes of cells": right}
        if teacher:
            watched["feature loss"] = teacher.feature_loss(features, batch.pixels, batch.grid)
            loss = loss + watched["feature loss"]
        return loss, watched

    def read(self, batch: TextBatch, features: Tensor, before: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Hidden states of texts `(N, D)` and of image tokens `(B, h * w, D)`: after `EARLY` layers, at the end.

        At the end, those of image tokens are from before the last layer: what it says of them is not read.

        Args:
            batch: Texts on `B` images.
            features: Of the images, `(B, h * w, D)`.
            before: Ids up to the image.
        """
        text, start, Q = self.model.model.language_model, len(before), len(before) + features.shape[1]
        words = text.embed_tokens(before).expand(len(features), -1, -1)
        asked = torch.cat([words, features.to(words.dtype)], 1)
        cosine, sine = self._rotations(batch.grid, start)
        hidden, read = [text.embed_tokens(group.ids) for group in batch.groups], []
        for number, layer in enumerate(text.layers):
            if number in (*EARLY, len(text.layers) - 1):
                read.append((torch.cat([states.flatten(0, 1) for states in hidden]), asked[:, start:]))
            mixed, seen = attend_question(layer.self_attn, layer.input_layernorm(asked), (cosine[:, :Q], sine[:, :Q]))
            for index, (group, states) in enumerate(zip(batch.groups, hidden, strict=True)):
                tables = cosine[:, Q : Q + states.shape[1]], sine[:, Q : Q + states.shape[1]]
                of_question = tuple(part.index_select(0, group.images) for part in seen)
                after = states + attend_answers(layer.self_attn, layer.input_layernorm(states), tables, of_question)
                hidden[index] = after + layer.mlp(layer.post_attention_layernorm(after))
            if number + 1 < len(text.layers):
                asked = asked + mixed
                asked = asked + layer.mlp(layer.post_attention_layernorm(asked))
        last = text.norm(torch.cat([states.flatten(0, 1) for states in hidden]))
        return [*read[:-1], (last, read[-1][1])]

    def _rotations(self, grid: tuple[int, int], start: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions of `start` tokens, an image and a text of `LONGEST` tokens."""
        if grid not in self._tables:
            image = torch.arange(start + grid[0] * grid[1]) >= start
            positions = self.family.positions(self.model, image, grid, (1, LONGEST))
            self._tables[grid] = self.model.model.language_model.rotary_emb(self.own_place.weight, positions)
        return self._tables[grid]

    def text_losses(self, batch: TextBatch, features: Tensor, before: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch of texts, and figures to watch; arguments as of `read`."""
        read = self.read(batch, features, before)
        found = [
            head(hidden.index_select(0, batch.at), image, features, batch.counts)
            for head, (hidden, image) in zip(self.places, read, strict=True)
        ]
        *early, losses = (where_losses(*logits, batch) for logits in found)
        hidden, where = read[-1][0], found[-1][0]
        for layers, of_layer in zip(EARLY, early, strict=True):
            losses |= {f"{name} {layers}": loss for name, loss in of_layer.items()}
        losses["own place"] = 0.3 * place_loss(self.own_place(read[0][1]), batch.grid)
        written = self.model.lm_head(hidden.index_select(0, batch.answers))
        of_tokens = F.cross_entropy(written.float(), batch.targets, reduction="none")
        losses["describing"] = (of_tokens * ~batch.asked).sum() / (~batch.asked).sum().clamp(min=1)
        losses["answering"] = ANSWERING * (of_tokens * batch.asked).sum() / batch.asked.sum().clamp(min=1)
        referring = hidden.index_select(0, batch.at)
        losses["presence"] = 0.3 * F.binary_cross_entropy_with_logits(
            self.presence(referring)[:, 0].float(), batch.present.float()
        )
        named = self.attributes(referring).float().split(OF_THINGS, -1)
        losses["attributes"] = 0.3 * sum(
            F.cross_entropy(logits, classes, ignore_index=IGNORED)
            for logits, classes in zip(named, batch.attributes.unbind(1), strict=True)
        )
        both, either = (where > 0) & (batch.cells > 0.5), (where > 0) | (batch.cells > 0.5)
        overlap = both.sum(1) / either.sum(1).clamp(min=1)
        whole, anchored = batch.final & batch.present, batch.anchors[:, 0] != IGNORED
        watched = dict(losses)
        right = (written.argmax(-1) == batch.targets) & batch.asked
        watched["tokens of answers right"] = right.sum() / batch.asked.sum().clamp(min=1)
        for name, chosen in (("IoU of names", whole & ~anchored), ("IoU of relations", whole & anchored)):
            watched[name] = (overlap * chosen).sum() / chosen.sum().clamp(min=1)
        return torch.stack(list(losses.values())).sum(), watched

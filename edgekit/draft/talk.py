"""Conversations of a model with itself in PyTorch, thousands side by side: what `conversations` does, for a GPU.

All rows are at the same place of their texts, so a step appends one token to each and no position is masked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.chat.template import TEMPLATE_FILE, ChatTemplate
from edgekit.chat.tokenizer import ChatTokenizer, special_tokens
from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.special_tokens import special_token_ids
from edgekit.draft.conversations import (
    ANSWER_TEMPERATURE,
    ANSWER_TOKENS,
    TOP_K,
    TOP_P,
    USER_TEMPERATURE,
    USER_TOKENS,
    Frame,
    frame_of,
)
from edgekit.draft.text import TextOptions
from edgekit.errors import ModelError, PromptError
from edgekit.heal.full_attention import head_of, layers_of, tables_of
from edgekit.layers.attention import Attention
from edgekit.layers.decoder import Decoder, DecoderLayer
from edgekit.layers.split import split_last
from edgekit.ops.causal_attention import rotate

#: Of the memory that is free, how much the caches of the conversations may take.
_SHARE = 0.6
_MOST_ROWS = 4096


def frame_of_checkpoint(checkpoint: Checkpoint) -> Frame:
    """The frame of a checkpoint's template. Raises PromptError: it has none, or one that cannot be used."""
    files = checkpoint.tokenizer_files()
    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    source = files[TEMPLATE_FILE].decode() if TEMPLATE_FILE in files else settings.get("chat_template")
    if not isinstance(source, str):
        raise PromptError(
            "a model talks with itself in its chat template",
            f"{checkpoint.path} has none",
            "give text to train on: --text FILE --positions 0",
        )
    names, template = special_tokens(settings), ChatTemplate(source)
    return frame_of(
        lambda messages, begin: template.render(messages, special_tokens=names, add_generation_prompt=begin),
        ChatTokenizer(files["tokenizer.json"].decode(), special_tokens=names).encode,
    )


class Turns:
    """Whose turn it is in each of B conversations, and what must be said: `conversations._Row` for all at once."""

    def __init__(self, rows: int, frame: Frame, eos: Collection[int], device: torch.device) -> None:
        longest = max(len(frame.answer), len(frame.again))
        self._frames = torch.zeros(2, longest, dtype=torch.long, device=device)
        for index, tokens in enumerate((frame.answer, frame.again)):
            self._frames[index, : len(tokens)] = torch.tensor(tokens)
        self._lengths = torch.tensor([len(frame.answer), len(frame.again)], device=device)
        self._eos = torch.tensor(sorted(eos), device=device)
        self._greedy = torch.arange(rows, device=device) % 2 == 1
        self._answering = torch.zeros(rows, dtype=torch.bool, device=device)
        self._written = torch.zeros(rows, dtype=torch.long, device=device)
        #: Which frame is being written, how far it is; a frame that is done is at its length.
        self._frame = torch.zeros(rows, dtype=torch.long, device=device)
        self._place = self._lengths[self._frame].clone()

    def temperatures(self) -> Tensor:
        """Of what each says next, float32 [B]."""
        answer = torch.where(self._greedy, 0.0, ANSWER_TEMPERATURE)
        return torch.where(self._answering, answer, USER_TEMPERATURE)

    def next(self, chosen: Tensor) -> Tensor:
        """The tokens [B] to append, given what the model would say."""
        free = self._place >= self._lengths[self._frame]
        self._written += free
        limit = torch.where(self._answering, ANSWER_TOKENS, USER_TOKENS)
        ended = free & (torch.isin(chosen, self._eos) | (self._written > limit))
        # What ends a turn is part of the frame.
        self._frame = torch.where(ended, self._answering.long(), self._frame)
        self._place = torch.where(ended, 0, self._place)
        self._answering = self._answering ^ ended
        self._written = torch.where(ended, 0, self._written)
        forced = self._place < self._lengths[self._frame]
        said = self._frames[self._frame, self._place.clamp(max=self._frames.shape[1] - 1)]
        self._place += forced
        return torch.where(forced, said, chosen)


@torch.inference_mode()
def talk(
    model: Decoder,
    frame: Frame,
    eos: Collection[int],
    *,
    rows: int,
    length: int,
    seed: int,
    advance: Callable[[int], None] = lambda count: None,
) -> npt.NDArray[np.int64]:
    """Conversations of the model with itself, int64 [rows, length].

    Args:
        model: on the device to compute on; its products are made in bfloat16.

    Raises:
        ModelError: its attention keeps something else than keys and values.
    """
    device, shapes = head_of(model).device, [module.shape for module in _attentions(model)]
    rooms = [(2, rows, shape.kv_heads, length, shape.head_dim) for shape in shapes]
    caches = [torch.zeros(room, dtype=torch.bfloat16, device=device) for room in rooms]
    generator = torch.Generator(device).manual_seed(seed)
    turns = Turns(rows, frame, eos, device)
    found = torch.zeros(rows, length, dtype=torch.long, device=device)
    opening = torch.tensor(frame.opening[:length], device=device)
    found[:, : len(opening)] = opening
    for place in range(length - 1):
        logits = _step(model, found[:, place : place + 1], place, caches)
        if place + 1 >= len(opening):
            found[:, place + 1] = turns.next(drawn(logits, turns.temperatures(), generator))
        advance(rows)
    advance(rows)
    return found.cpu().numpy()


class TorchTalker:
    """Implements Talker with a model in PyTorch."""

    def __init__(self, model: Decoder, checkpoint: Checkpoint, options: TextOptions) -> None:
        """Raises PromptError: see `frame_of_checkpoint`."""
        self._model, self._options = model, options
        self._frame = frame_of_checkpoint(checkpoint)
        self.skip, self.ends = (
            len(self._frame.opening),
            special_token_ids(checkpoint, checkpoint.tokenizer_files())["eos"],
        )
        self.rows = min(rows_that_fit(model, options.length), max(1, -(-options.positions // options.length)))

    def talk(self, index: int, advance: Callable[[int], None]) -> npt.NDArray[np.int64]:
        """See Talker."""
        seed = int(np.random.default_rng((self._options.seed, index)).integers(2**31))
        rows, length = self.rows, self._options.length
        return talk(self._model, self._frame, self.ends, rows=rows, length=length, seed=seed, advance=advance)

    def close(self) -> None:
        """The model is another's."""


def rows_that_fit(model: Decoder, length: int) -> int:
    """How many conversations of `length` tokens have room on the model's device."""
    each = sum(4 * length * module.shape.kv_heads * module.shape.head_dim for module in _attentions(model))
    device = head_of(model).device
    free = 2**30
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what PyTorch keeps for itself does not count as free
        free = torch.cuda.mem_get_info(device)[0]
    # The logits, their likeliest and sums over them.
    each += 16 * len(head_of(model))
    return max(1, min(_MOST_ROWS, int(_SHARE * free / each)))


def _attentions(model: Decoder) -> list[Attention]:
    """Of all layers. Raises ModelError: one keeps something else than keys and values, or norms them."""
    found = []
    for layer in layers_of(model):
        module = layer.self_attn
        if type(module) is not Attention or module.q_norm is not None:
            raise ModelError(
                "conversations on a GPU are for models with plain attention",
                f"{type(module).__name__} is not, or norms its keys",
                "train with --device cpu",
            )
        found.append(module)
    return found


def _step(
    model: Decoder, ids: Tensor, place: int, caches: list[Tensor], compute: torch.dtype = torch.bfloat16
) -> Tensor:
    """Logits float32 [B, V] after the tokens [B, 1] at `place`."""
    hidden = model.model.embed_tokens(ids).float()
    with torch.autocast(hidden.device.type, compute, enabled=compute != torch.float32):
        for layer, cache in zip(layers_of(model), caches, strict=True):
            hidden = hidden + _attended(model, layer, layer.input_layernorm(hidden), place, cache)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return functional.linear(model.model.norm(hidden[:, 0].float()), head_of(model)).float()


def _attended(model: Decoder, layer: DecoderLayer, x: Tensor, place: int, cache: Tensor) -> Tensor:
    module = cast(Attention, layer.self_attn)
    shape = module.shape
    cos, sin = (table[place : place + 1].to(x.dtype)[None] for table in tables_of(model, layer))
    query = rotate(split_last(module.q_proj(x), shape.num_heads, shape.head_dim), cos, sin)
    cache[0, :, :, place] = rotate(split_last(module.k_proj(x), shape.kv_heads, shape.head_dim), cos, sin)[:, 0]
    cache[1, :, :, place] = split_last(module.v_proj(x), shape.kv_heads, shape.head_dim)[:, 0]
    # Heads that share keys lie beside each other, and take the place of positions: all see the same.
    query = query.view(len(x), shape.kv_heads, -1, shape.head_dim).to(cache.dtype)
    first = 0 if shape.window < 0 else max(0, place + 1 - shape.window)
    key, value = cache[:, :, :, first : place + 1]
    mixed = functional.scaled_dot_product_attention(query, key, value, scale=shape.scale)
    output: Tensor = module.o_proj(mixed.reshape(len(x), 1, -1))
    return output


def drawn(logits: Tensor, temperatures: Tensor, generator: torch.Generator) -> Tensor:
    """A token per row, int64 [B], as `conversations.drawn` draws it."""
    values, best = logits.topk(min(TOP_K, logits.shape[1]), -1)
    mass = ((values - values[:, :1]) / temperatures.clamp(min=1e-6)[:, None]).double().softmax(-1)
    mass = mass.masked_fill(mass.cumsum(-1) - mass >= TOP_P, 0.0)
    return best.gather(-1, torch.multinomial(mass, 1, generator=generator))[:, 0]

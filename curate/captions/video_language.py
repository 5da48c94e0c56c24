"""Captions by a model that sees the clip: any image-text-to-text model of `transformers` that takes several pictures.

It is shown some frames of the front view, in order. Needs the extra `caption`; nothing else on the data side loads
torch, and here only the library does.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from pipeline.media import GREY, compose, read_view
from pipeline.records import Caption, Clip, Record, Rejected
from pipeline.stage import Stage, rejected

MAX_CHARACTERS = 2000
_ONE_AT_A_TIME = threading.Lock()
"""A model is loaded once a process, and works for one thread at a time."""


@dataclass(frozen=True, kw_only=True)
class VideoLanguage(Stage[Clip, Caption]):
    """Ask a model what a clip shows."""

    name: ClassVar[str] = "caption.model"
    writes: ClassVar[tuple[type[Record], ...]] = (Caption,)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "cpu"

    model: str
    """Folder of a model in the layout of `save_pretrained`, or its name on the Hugging Face hub."""
    revision: str = "main"
    """Branch, tag or commit on the hub; a commit makes a run repeatable."""
    prompt: str = (
        "These are frames of a short video of one 3D model, in order. Say in one sentence what it is and does."
    )
    num_frames: int = 8
    """Shown to the model, evenly spread over the clip, from the view nearest the front."""
    max_new_tokens: int = 80

    def __post_init__(self) -> None:
        if not self.model or not self.prompt.strip():
            raise ValueError("a model and a prompt must be given")
        if self.num_frames < 1 or self.max_new_tokens < 1:
            raise ValueError(f"need num_frames and max_new_tokens >= 1, got {self.num_frames}, {self.max_new_tokens}")

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[Clip]:
        """The clips among the rows."""
        return [row for row in rows if isinstance(row, Clip)]

    @property
    def source(self) -> str:
        """What the captions are called by: the model's name and the settings that decide its words."""
        return f"{Path(self.model.rstrip('/')).name}@{self.settings_id}"

    def process(self, item: Clip) -> Iterator[Caption | Rejected]:
        """One caption, or a rejection if the pictures cannot be read or the model says nothing."""
        try:
            pictures = self._pictures(item)
        except ValueError as error:
            yield rejected(self, item.clip_id, "malformed", str(error), item.folder)
            return
        with _ONE_AT_A_TIME:
            text = load(self.model, self.revision).answer(self.prompt, pictures, self.max_new_tokens)
        if text:
            yield Caption(clip_id=item.clip_id, kind="model", source=self.source, text=text, about="")
        else:
            yield rejected(self, item.clip_id, "no_words", f"{self.model} gave an empty answer", item.folder)

    def _pictures(self, clip: Clip) -> list[Image.Image]:
        frames = read_view(self.store, clip, view_to_show(clip))
        chosen = np.linspace(0, len(frames) - 1, min(self.num_frames, len(frames))).round().astype(int)
        shown = np.rint(compose(frames[chosen], GREY) * 255.0).astype(np.uint8)
        return [Image.fromarray(frame) for frame in shown]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor, ready to answer."""

    processor: Any
    model: Any

    def answer(self, prompt: str, pictures: Sequence[Image.Image], max_new_tokens: int) -> str:
        """What the model says of pictures; the same each time. Empty if it ends at once."""
        content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": prompt}]
        question = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = self.processor(text=[question], images=[list(pictures)], return_tensors="pt").to(self.model.device)
        answer = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        (text,) = self.processor.batch_decode(answer[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return " ".join(str(text).split())[:MAX_CHARACTERS]


@lru_cache(maxsize=1)
def load(model: str, revision: str) -> LoadedModel:
    """Load a model: weights as safetensors, no code of its own.

    Raises:
        ValueError: The extra is not installed, or there is no such model; says what to do.
    """
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise ValueError(f"{error}: install torch and then `pip install 'mv4d[caption]'`") from None
    processors: Any = AutoProcessor
    networks: Any = AutoModelForImageTextToText
    try:
        processor = processors.from_pretrained(model, revision=revision, trust_remote_code=False)
        network = networks.from_pretrained(
            model, revision=revision, trust_remote_code=False, use_safetensors=True, dtype="auto", device_map="auto"
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ValueError(f"the model {model} cannot be loaded: {str(error)[:500]}") from None
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(f"the model {model} has no chat template, so it is not known how to ask it")
    return LoadedModel(processor, network.eval())


def view_to_show(clip: Clip) -> int:
    """The moving view whose camera stands nearest the front, which looks to -y; the first of equals."""
    position = np.asarray(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)[:, 0, :3, 3]
    towards_front = np.round(-position[:, 1] / np.linalg.norm(position, axis=1), 6)
    views = [view for view in range(clip.num_views) if clip.view_names[view] != "static"]
    return max(views, key=lambda view: (towards_front[view], -view))

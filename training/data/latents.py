"""Examples whose pictures and words have been through the frozen encoders: written by `training.latents`, read here.

The same stream as `training.data.clips`: the same samples in the same order with the same variants, so training may
change from one to the other at any step.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.storage import Store
from training.data.clips import ClipSettings, Example, IndexedExamples
from training.data.index import BrokenSample, Row, SampleIndex, Selection
from training.encoders import Encoders

FORMAT = "mv4d-latents/1"
ABOUT = "latents.json"
EMPTY_TEXT = "empty_text.safetensors"
TEXT = "text.safetensors"
"""A member of each sample: the states of its caption."""

Precision = Literal["float32", "float16", "bfloat16"]


class EncodedExample(TypedDict):
    """One training example; a batch has one more axis in front."""

    latents: Tensor
    """Shape (view, frame, channel, height, width), scaled as the VAE's configuration says."""
    text: Tensor
    """The text encoder's states of the caption, shape (words, context)."""
    image_embeds: Tensor
    """CLIP's embedding of each view's first frame, shape (view, image)."""
    cameras: Tensor
    """Shape (view, 16), float32: `training.cameras.camera_vectors`."""
    caption: str
    key: str
    num_broken: int
    """Samples that could not be read and were passed over before this one was."""


@dataclass(frozen=True, kw_only=True)
class AboutLatents:
    """`latents.json`: what was encoded, and with what."""

    clips: ClipSettings
    """As the pictures were chosen and composed."""
    encoders: str
    """`Encoders.fingerprint`."""
    store_as: Precision = "float16"
    """Of latents, text and image embeddings."""
    format: str = FORMAT

    def to_json(self) -> bytes:
        """The file."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, store: Store) -> Self:
        """Of a folder of latents.

        Raises:
            FileNotFoundError: It is none.
            ValueError: It is of another format, or damaged.
        """
        if not store.exists(ABOUT):
            raise FileNotFoundError(f"no {ABOUT} in {store.root}: write latents with `mv4d latents`")
        try:
            fields: dict[str, Any] = json.loads(store.read_bytes(ABOUT))
            if fields["format"] != FORMAT:
                raise ValueError(f"of the format {fields['format']!r}, not {FORMAT!r}")
            return cls(**{**fields, "clips": ClipSettings(**fields["clips"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{store.root}/{ABOUT} does not describe latents: {error}") from error


class LatentDataset(IndexedExamples[EncodedExample]):
    """Encoded examples by their place in the stream (`training.data.order`).

    What could not be encoded is passed over as a broken sample is, so that nothing else changes its place.
    """

    def __init__(self, index: SampleIndex, about: AboutLatents, *, strict: bool = False) -> None:
        super().__init__(index, about.clips, strict=strict)
        self.about = about

    @classmethod
    def open(cls, root: str, selection: Selection, *, strict: bool = False) -> Self:
        """Find the latents of a folder.

        Args:
            root: Folder or fsspec URL that `mv4d latents` wrote.
            selection: Which of the samples, as of the shards.
            strict: Raise `BrokenSample` instead of taking another sample: for evaluation.

        Raises:
            FileNotFoundError: There are none, or they are not finished.
            ValueError: The selection selects nothing, or the folder is damaged.
        """
        about = AboutLatents.read(Store(root))
        try:
            return cls(SampleIndex.open(root, selection), about, strict=strict)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"the latents of {root} are not finished: give `mv4d latents` the same options again"
            ) from error

    def empty_text(self) -> Tensor:
        """The text encoder's states of the empty prompt, shape (words, context)."""
        try:
            return _tensors(Store(self.index.root).read_bytes(EMPTY_TEXT), ("text",))["text"]
        except BrokenSample as error:
            raise ValueError(f"{self.index.root}/{EMPTY_TEXT} is damaged: {error}") from error

    def example(self, row: Row, variant: int, *, num_broken: int = 0) -> EncodedExample:
        """A variant of a sample; errors as in the base class."""
        shown = _tensors(self.read(row, variant_name(variant)), ("latents", "image_embeds", "cameras"))
        clips = self.settings
        if shown["latents"].shape[:2] != (clips.num_views, clips.num_frames):
            raise BrokenSample(f"latents of shape {tuple(shown['latents'].shape)}, unlike {ABOUT}")
        return EncodedExample(
            latents=shown["latents"],
            text=_tensors(self.read(row, TEXT), ("text",))["text"],
            image_embeds=shown["image_embeds"],
            cameras=shown["cameras"],
            caption=row.caption,
            key=row.key,
            num_broken=num_broken,
        )


def variant_name(variant: int) -> str:
    """The member that holds a variant of a sample."""
    return f"w{variant:02d}.safetensors"


def encode(
    example: Example, encoders: Encoders, store_as: Precision = "float32", *, at_once: int | None = None
) -> EncodedExample:
    """An example as the network is given it: what `LatentDataset` reads, made now.

    Args:
        example: One, not a batch.
        encoders: The frozen parents.
        store_as: Precision of latents and embeddings.
        at_once: Pictures that the VAE encodes together; all if None.
    """
    pictures = example["video"] / 2 + 0.5
    dtype = getattr(torch, store_as)
    return EncodedExample(
        latents=encoders.pictures(pictures, at_once=at_once).to("cpu", dtype),
        text=encode_text(example["caption"], encoders, store_as),
        image_embeds=encoders.first_frames(pictures[None, :, 0])[0].to("cpu", dtype),
        cameras=example["cameras"],
        caption=example["caption"],
        key=example["key"],
        num_broken=example["num_broken"],
    )


def encode_text(caption: str, encoders: Encoders, store_as: Precision) -> Tensor:
    """The text encoder's states of one caption, shape (words, context)."""
    return encoders.prompts([caption])[0].to("cpu", getattr(torch, store_as))


def _tensors(content: bytes, names: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BrokenSample(f"not a safetensors file: {error}") from error
    if set(tensors) != set(names):
        raise BrokenSample(f"holds {', '.join(sorted(tensors))} instead of {', '.join(names)}")
    return tensors

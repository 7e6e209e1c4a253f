"""What priors with public weights have in common: where they come from, how they fit into memory, what they are told.

A prior of this kind declares its parts, says how one text is encoded (:meth:`Pretrained.say`) and how its network is
asked (``answer``). Text towers are loaded when a text is met that no cache knows, and are no submodules: they may rest
on the CPU or be dropped again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.cache import cache_folder
from core.config.base import Config as BaseConfig
from core.contracts import Context
from core.diffusion import memory
from core.diffusion.folder import Pipeline, network_config, open_pipeline
from core.diffusion.latent import KINDS, LatentPrior, LatentSpace, pixels_per_latent, resolved
from core.diffusion.lora import Lora
from core.diffusion.process import DiffusionProcess
from core.diffusion.single_file import as_folder, is_single_file
from core.diffusion.texts import Said, TextCache, clip_length, clip_windows
from core.diffusion.tokens import read_tokens
from core.errors import UserError
from core.types import Cameras, Condition, Views

Precision = Literal["float32", "bfloat16", "float16"]


class PretrainedConfig(BaseConfig):
    """Options of every prior with public weights."""

    model: str = Field(min_length=1)
    """A local folder, a name that the hub (or a plugin's ``resolve_model``) knows, or a single-file checkpoint."""
    structure: str | None = None
    """Of a single file: a folder, or a name as above, whose configurations and tokenizers describe its networks."""
    precision: Precision = "float32"
    """Weights and arithmetic of the denoiser, weights of the text towers; float16 needs a GPU."""
    image_size: int | None = Field(None, ge=8)
    """Side in pixels that renders are resized to; null takes what the denoiser was trained at."""
    variant: str | None = None
    """Which weight files are taken where a part has several (`fp16`)."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    vae_precision: Precision = "float32"
    """Weights and arithmetic of the autoencoder; many overflow in float16."""
    vae_tiling: bool = False
    """Encode and decode pictures in overlapping tiles: less memory, faint seams."""
    vae_checkpointing: bool = False
    """Compute the autoencoder's encoder again in the backward pass: less memory, slower steps."""
    attention: memory.Attention = "sdpa"
    """Fused attention, or sliced: a few heads at a time, less memory and slower (UNets only)."""
    offload: memory.Offload = "none"
    """What rests on the CPU until it is used: the text towers (text), also the decoder (idle), also the denoiser,
    layer by layer (stream: slow, for models that do not fit otherwise)."""
    free_text: bool = False
    """Drop the text towers after encoding; a new text loads them again."""
    text_cache: bool = True
    """Keep embeddings on disk by model and text (in `MAQUETTE_CACHE`), so that later runs load no text tower."""
    lora: Path | None = None
    """LoRA weights added to the denoiser and the text towers: a file, or a folder with one."""
    lora_scale: float = 1.0
    """Multiplies what the LoRA adds."""
    compile: bool = False
    """Compile the denoiser: the first steps take minutes, later ones less time."""


class Pretrained(LatentSpace):
    """The base of priors with public weights.

    Attributes:
        pipelines: the classes of ``model_index.json`` that fit.
        kinds: the parts and what reads them; the denoiser is ``network_name``.
        optional: parts that a folder may lack.
        patch: latents a side to one token of the denoiser; the picture's size must be a multiple of it.
        text_changes: what beside model and text decides an embedding (a LoRA in the text tower); None switches the
            disk's cache off.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[dict[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    patch: ClassVar[int] = 1
    Config: ClassVar[type[BaseConfig]] = PretrainedConfig

    def __init__(self, options: Any, context: Context) -> None:
        pipeline = self.open(options, context)
        self.check_fits(options, pipeline)
        parts = self.load_networks(pipeline, options)
        self.lora = self._lora(pipeline, parts[self.network_name], options)
        self.pipeline = pipeline  # before the base, which may already teach the tower a word
        self.text_changes: list[Any] | None = [] if self.lora is None else self.lora.identity
        self._towers: dict[str, Any] = {}
        self._tokenizers: dict[str, Any] = {}
        self._texts_said: TextCache | None = None
        super().__init__(options, context, parts, options.image_size, getattr(torch, options.precision), True)
        self._fit_memory()

    @classmethod
    def open(cls, options: Any, context: Context) -> Pipeline:
        """The pipeline's folder, checked.

        Raises:
            UserError: it is missing, damaged, or another pipeline's.
        """
        source = resolved(options.model, context)
        if is_single_file(source):
            source = str(as_folder(source, cls.described_by(options, context), cls.pipelines))
        more = {"variant": options.variant, "revision": options.revision}
        return open_pipeline(source, cls.kinds, cls.pipelines, context, optional=cls.optional, **more)

    @classmethod
    def described_by(cls, options: Any, context: Context) -> str | None:
        """Where the configurations of the networks are, of a model that may be a single file."""
        source = resolved(options.model, context)
        if not is_single_file(source):
            return source
        return None if options.structure is None else resolved(options.structure, context)

    def load_networks(self, pipeline: Pipeline, options: Any) -> dict[str, Any]:
        """What stays in memory: autoencoder, denoiser, scheduler. Override to add parts."""
        made = {self.network_name: pipeline.load(self.network_name, getattr(torch, options.precision))}
        if "vae" in pipeline.kinds:
            made["vae"] = pipeline.load("vae", getattr(torch, options.vae_precision))
        return made | {"scheduler": pipeline.load("scheduler")}

    def _lora(self, pipeline: Pipeline, network: Any, options: Any) -> Lora | None:
        """The LoRA that is asked for, already added to the denoiser; towers get their share when they are loaded."""
        if options.lora is None:
            return None
        lora = Lora(options.lora, self.network_name, network, pipeline.kinds, options.lora_scale)
        lora.add(self.network_name, network)
        return lora

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        source = cls.described_by(options, context) or str(cls.open(options, context).folder)
        vae = network_config(source, "vae", options.revision) if "vae" in cls.kinds else None
        channels, pixels = (3, 1) if vae is None else (int(vae["latent_channels"]), pixels_per_latent(vae))
        if options.image_size is not None:
            side = options.image_size // pixels
        else:
            side = cls.native_size(network_config(source, cls.network_name, options.revision))
        return channels, side, side

    @classmethod
    def check_fits(cls, options: Any, pipeline: Pipeline) -> None:
        """Refuse options that this model cannot follow, before it is loaded.

        Raises:
            UserError: with what would fit.
        """
        unit = cls.patch * (pixels_per_latent(pipeline.config("vae")) if "vae" in pipeline.kinds else 1)
        if options.image_size is not None and options.image_size % unit:
            raise UserError(f"image_size is {options.image_size}, but must be a multiple of {unit} for this model")
        if options.attention == "sliced" and cls.network_name != "unet":
            raise UserError("attention=sliced is for UNets; a transformer's attention is sdpa")

    def process_of(self, scheduler: Any) -> DiffusionProcess:
        return DiffusionProcess.from_scheduler(scheduler, (self.latent_shape[1] // self.patch) ** 2)

    def _fit_memory(self) -> None:
        o, network = self.options, self.network
        if o.attention == "sliced":
            network.set_attention_slice("auto")
        if o.vae_tiling and self.vae is not None:
            memory.tile(self.vae)
        if o.vae_checkpointing and self.vae is not None:
            memory.recompute(self.vae)
        if o.offload == "stream":
            memory.stream_layers(network, self.context.device)
        if o.compile:
            network.compile()

    @property
    def _decoder_rests(self) -> bool:
        return self.options.offload in ("idle", "stream") and self.vae is not None

    def _resting(self) -> list[tuple[nn.Module, str]]:
        """The submodules that ``to`` leaves where they are."""
        names: list[tuple[nn.Module, str]] = []
        if self._decoder_rests:
            names.append((self.vae, "decoder"))
        if self.options.offload == "stream":
            names.append((self, self.network_name))
        return names

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        with memory.left_out(self._resting()):
            return super()._apply(fn, recurse)

    def decode(self, latents: Tensor) -> Tensor:
        if not self._decoder_rests:
            return super().decode(latents)
        with memory.visiting(self.vae.decoder, self.device, torch.device("cpu")):
            return super().decode(latents)

    def tower(self, name: str) -> Any:
        """A text tower, loaded at the first call, on the prior's device."""
        if name not in self._towers:
            self._towers[name] = self.prepared(name, self.pipeline.load(name, self.tower_dtype))
        return self._towers[name].to(self.device)

    def prepared(self, name: str, tower: Any) -> Any:
        """A tower that was just loaded, as it is to be used; override to change it, and say so in ``text_changes``."""
        return tower if self.lora is None else self.lora.add(name, tower)

    @property
    def tower_dtype(self) -> torch.dtype:
        """Precision of the text towers' weights."""
        return getattr(torch, self.options.precision)  # type: ignore[no-any-return]

    def tokenizer_of(self, name: str) -> Any:
        """The tokenizer beside a tower: ``tokenizer_2`` of ``text_encoder_2``."""
        if name not in self._tokenizers:
            self._tokenizers[name] = self.pipeline.load(name.replace("text_encoder", "tokenizer"))
        return self._tokenizers[name]

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """After texts were encoded, the towers go where the options want them."""
        yield
        if self.options.free_text and self.text_changes is not None:  # what was learned is on no disk
            self._towers.clear()
        elif self.options.offload != "none":
            for tower in self._towers.values():
                tower.to("cpu")

    def say(self, text: str) -> Said:
        """What the towers make of one text; with ``text`` [L, D] at least. Without gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a text is encoded")

    def text_settings(self) -> list[Any]:
        """Options that change what ``say`` answers, for the cache's key."""
        return [self.options.precision]

    def said(self, text: str) -> Said:
        """As ``say``, from memory or disk where it was said before."""
        if self._texts_said is None:
            on_disk = self.options.text_cache and self.text_changes is not None
            names = [n for n in self.pipeline.kinds if n.startswith(("tokenizer", "text_encoder"))]
            key = [type(self).__name__, self.pipeline.identity(names), self.text_settings(), self.text_changes]
            self._texts_said = TextCache(cache_folder("texts") if on_disk else None, key)
        return self._texts_said.get(text, self._say, self.device)

    @torch.no_grad()
    def _say(self, text: str) -> Said:
        return {name: value.float() if value.is_floating_point() else value for name, value in self.say(text).items()}

    def forget_texts(self) -> None:
        """After the towers were changed: nothing that was said holds any more."""
        self._texts_said = None

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        with self.encoding():
            rows = {text: self.said(text) for text in dict.fromkeys(texts)}
        return Condition.cat([self.condition_of({k: v.to(self.device) for k, v in rows[t].items()}) for t in texts])

    def condition_of(self, said: Said) -> Condition:
        """One text as a condition of one row; ``text`` and ``pooled`` have their places, the rest are extras."""
        row = {name: value[None] for name, value in said.items()}
        text, pooled = row.pop("text"), row.pop("pooled", None)
        return Condition(text=text, pooled=pooled, extras=row)


class PretrainedClipConfig(PretrainedConfig):
    """Options of priors with one CLIP tower, which may learn words."""

    tokens: Path | None = None
    """Words learned by textual inversion: a file of embeddings, or a folder of such files."""


class PretrainedClip(Pretrained, LatentPrior):
    """A UNet in latents told by CLIP's last hidden state: Stable Diffusion 1.x and 2.x, and what is built on them."""

    kinds: ClassVar[dict[str, str]] = KINDS
    Config: ClassVar[type[BaseConfig]] = PretrainedClipConfig

    def __init__(self, options: Any, context: Context) -> None:
        words = {} if options.tokens is None else read_tokens(options.tokens)  # told before anything is loaded
        super().__init__(options, context)
        for word, vectors in words.items():
            self.add_token(word, vectors)

    def take_towers(self, parts: dict[str, Any]) -> None:
        """Nothing: they are loaded when a text is met."""

    @property
    def text_encoder(self) -> Any:
        """CLIP's text tower, on the prior's device."""
        return self.tower("text_encoder")

    @property
    def tokenizer(self) -> Any:
        """Of the text tower."""
        return self.tokenizer_of("text_encoder")

    def say(self, text: str) -> Said:
        windows = clip_windows(self.tokenizer, self.spelled(text), clip_length(self.tokenizer, self.text_encoder))
        return {"text": self.text_encoder(windows.to(self.device)).last_hidden_state.flatten(0, 1)}

    def embed_text(self, text: str) -> Tensor:
        return self.said(text)["text"]

    def add_token(self, word: str, vector: Tensor) -> None:
        super().add_token(word, vector)
        self.text_changes = None  # a word of this run alone
        self.forget_texts()

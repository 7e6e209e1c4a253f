"""``launch.py eval unclip RUN``: each network of a family against what would do without it, in one run.

The prior against two cheats that skip it, the text embedding and the mean embedding of the training pictures; pictures
of its embeddings against those of the cheats; what the decoder makes of another picture's embedding; guidance; words
exchanged. Kinds and colours are told by the embedded family's judge, which shares nothing with unCLIP.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.discovery import get_registry
from plugins.unclip.draw import BACKGROUND, SamplingConfig, decoded, draw_embeddings, large_pictures, slerp
from plugins.unclip.folder import Family, load_family
from plugins.unclip.sampling import Decoder, enlarge


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of unclip, or a family's folder.")],
    captions: Annotated[int, typer.Option(help="Captions of unseen objects for the prior.")] = 256,
    samples: Annotated[int, typer.Option(help="Captions of those that are drawn too.")] = 48,
    gallery: Annotated[int, typer.Option(help="Training pictures among which the nearest is sought.")] = 4096,
    split: Annotated[str, typer.Option(help="test, or heldout: pairs of kind and colour never shown.")] = "test",
    steps: Annotated[int, typer.Option(help="Steps of the decoder.")] = 25,
    output: Annotated[Path, typer.Option(help="Folder that receives the pictures.")] = Path("runs/eval-unclip"),
) -> dict[str, Any]:
    """The prior, the pictures, the decoder's use of its embedding, guidance and changes of words."""
    family, o, kinds = opened(run)
    o = o.model_copy(update={"decoder_steps": steps})
    held, known = _pool(split, captions, 11, kinds), _pool("train", gallery, 0, kinds)
    bench = Bench(family, o, held, known, min(samples, captions))
    table = {"prior": bench.prior(), "pictures": bench.pictures(), "decoder": bench.decoder(), "words": bench.words()}
    table["upsampler"] = bench.upsampler()
    for title, rows in table.items():
        print(f"\n{title}")
        for name, figures in rows.items():
            print(f"  {name:<46}" + "".join(f"{k:>12} {v:6.3f}" for k, v in figures.items()))
    path = bench.sheet(output)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"\n{path}; {machine}")
    return table | {"machine": machine, "split": split, "captions": captions, "samples": bench.count, "steps": steps}


def opened(run: Path) -> tuple[Family, SamplingConfig, tuple[str, ...]]:
    """The family of a run, its settings of sampling and the kinds it was shown, all if none; the usual of a folder."""
    from core.run import open_run

    if not (run / "config.yaml").is_file():
        return load_family(run), SamplingConfig(), ()
    task: Any = open_run(run).task()
    task.eval()
    return task.family(), task.options.sampling, tuple(getattr(task.data.options, "categories", ()))


def _pool(split: str, images: int, seed: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    data = get_registry().find("data", "procedural").load()
    options = data.Config(split=split, images=images, seed=seed, categories=kinds)
    return data(options, Context()).take(torch.arange(images).numpy())


class Bench:
    """The measurements on one family.

    Args:
        held: captioned pictures of unseen objects.  known: training pictures.  count: captions that are drawn.
    """

    def __init__(self, family: Family, o: SamplingConfig, held: dict[str, Any], known: dict[str, Any], count: int):
        self.family, self.o, self.held, self.known, self.count = family, o, held, known, count
        judge = get_registry().find("metric", "judge").load()
        self.judge = judge(judge.Config(), Context()).classifier
        tower = family.tower
        self.true, self.gallery = (torch.cat([tower.see(x) for x in d["rgb"].split(256)]) for d in (held, known))
        self.text = tower.tell(held["caption"]).embedding
        self.drawn = self._draw(1, held["caption"], 2)
        self.best = self._draw(2, held["caption"], 3)
        self.shown: dict[str, Tensor] = {}

    @torch.no_grad()
    def _draw(self, candidates: int, texts: list[str], seed: int) -> Tensor:
        o = self.o.model_copy(update={"candidates": candidates})
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([draw_embeddings(self.family, o, texts[k : k + 128], generator)
                          for k in range(0, len(texts), 128)])  # fmt: skip

    def prior(self) -> dict[str, dict[str, float]]:
        """Cosine to the true embedding, and whether the nearest training picture shows the kind and the colour."""
        mean = torch.stack([self._draw(1, self.held["caption"], 100 + k) for k in range(8)]).mean(0)
        rows = {
            "true embedding (ceiling)": self.true, "prior": self.drawn, "prior, best of 2": self.best,
            "prior, mean of 8 draws": mean, "cheat: text embedding": self.text,
            "cheat: mean of training pictures": self.gallery.mean(0).expand_as(self.true),
        }  # fmt: skip
        return {name: self._nearness(z) for name, z in rows.items()}

    def _nearness(self, z: Tensor) -> dict[str, float]:
        centre, spread = self.gallery.mean(0), self.gallery.std(0)
        nearest = (F.normalize(z, dim=1) @ F.normalize(self.gallery, dim=1).T).argmax(1)
        out = {
            "cosine": float(F.cosine_similarity(z, self.true).mean()),
            "whitened": float(F.cosine_similarity((z - centre) / spread, (self.true - centre) / spread).mean()),
            "text cosine": float(F.cosine_similarity(z, self.text).mean()),
        }
        for key, name in (("category", "kind"), ("color", "colour")):
            out[name] = float((self.known[key][nearest] == self.held[key]).float().mean())
        return out

    @torch.no_grad()
    def _pictures(self, z: Tensor, texts: list[str], seed: int = 5, scale: float | None = None) -> Tensor:
        """[B, S, S, 3] in [0, 1] of embeddings; the same noise for every row of the table."""
        o = self.o if scale is None else self.o.model_copy(update={"decoder_scale": scale})
        generator = torch.Generator().manual_seed(seed)
        made = [decoded(self.family, o, z[k : k + 16], texts[k : k + 16], generator) for k in range(0, len(z), 16)]
        return (torch.cat(made).movedim(1, -1) * 0.5 + 0.5).clamp(0, 1)

    def _seen(self, rgb: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """Shares of right kinds and (named) colours, and the mean cosine to the caption."""
        rows = torch.arange(len(rgb)) if rows is None else rows
        kind, color = self._judged(rgb)
        named = self.held["color"][rows] != len(self.judge.colors) - 1
        score = F.cosine_similarity(self.family.tower.see(rgb), self.text[rows])
        return {
            "kind": float((kind == self.held["category"][rows]).float().mean()),
            "colour": float((color == self.held["color"][rows])[named].float().mean()),
            "CLIP score": float(score.mean()),
        }

    @torch.no_grad()
    def _judged(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Kinds and named colours [B] that the judge sees."""
        logits = self.judge(rgb)
        return logits["category"].argmax(1), logits["color"][:, :-1].argmax(1)

    def pictures(self) -> dict[str, dict[str, float]]:
        """Kind and colour of what is drawn, by the judge; the decoder told the embedding alone unless a row says so."""
        n = self.count
        texts, silent = self.held["caption"][:n], [""] * n
        null = self.family.networks["text_proj"].learned_classifier_free_guidance_embeddings.detach().expand(n, -1)
        rows = {
            "true pictures (the judge's own ceiling)": self.held["rgb"][:n],
            "true embedding": self._pictures(self.true[:n], silent),
            "prior, best of 2, and text": self._pictures(self.best[:n], texts),
            "prior, best of 2": self._pictures(self.best[:n], silent),
            "prior, best of 2, guidance 1": self._pictures(self.best[:n], silent, scale=1.0),
            "prior, best of 2, guidance 4": self._pictures(self.best[:n], silent, scale=4.0),
            "cheat: text embedding": self._pictures(self.text[:n], silent),
            "cheat: mean of training pictures": self._pictures(self.gallery.mean(0).expand(n, -1), silent),
            "text alone, null embedding": self._pictures(null, texts),
        }
        self.shown = rows
        return {name: self._seen(rgb) for name, rgb in rows.items()}

    def decoder(self) -> dict[str, dict[str, float]]:
        """Does it use its embedding? Another picture's under the same noise; the same one under other noise."""
        n = self.count
        other = torch.arange(n).roll(n // 2)
        texts = self.held["caption"][:n]
        swapped = self._pictures(self.true[:n][other], [""] * n)
        under_text = self._pictures(self.true[:n][other], texts)
        first, second = self.shown["true embedding"], self._pictures(self.true[:n], [""] * n, seed=6)
        same = F.cosine_similarity(self.family.tower.see(first), self.family.tower.see(second))
        differ = float((first - second).abs().mean())
        own, theirs = self.held["category"][:n], self.held["category"][:n][other]
        kept = self._judged(first)[0] == self._judged(second)[0]
        null = self.family.networks["text_proj"].learned_classifier_free_guidance_embeddings.detach()
        return {
            "another's embedding": self._kinds(swapped, own, theirs),
            "another's embedding under own text": self._kinds(under_text, own, theirs),
            "variations of one embedding": {
                "CLIP cosine": float(same.mean()), "difference": differ, "kind kept": float(kept.float().mean())},
            "null embedding": {"length": float(null.norm()), "off mean": float((null - self.gallery.mean(0)).norm())},
            "learned variance, share of its range": self._variance(),
        }  # fmt: skip

    @torch.no_grad()
    def upsampler(self) -> dict[str, dict[str, float]]:
        """True pictures made small and enlarged again: tint and grain of the corners, which should be the plain grey
        behind the object, in [-1, 1], and the PSNR; beside plain enlarging."""
        true = self.held["rgb"][: self.count].movedim(-1, 1) * 2 - 1
        side = self.family.networks["decoder"].config.sample_size
        small = F.interpolate(true, size=(side, side), mode="bilinear", antialias=True)
        rows = {"enlarged alone (bicubic)": enlarge(small, true.shape[-1])}
        for start in sorted({self.o.upsampler_start, 1.0}):
            o = self.o.model_copy(update={"upsampler_start": start})
            name = "from noise alone" if start == 1 else f"from the enlarged picture, start {start:g}"
            rows[name] = large_pictures(self.family, o, small, torch.Generator().manual_seed(7))
        table = {}
        for name, x in rows.items():
            corner = x[..., :6, :6] - 2 * BACKGROUND + 1
            tint, grain = corner.mean((2, 3)).abs().mean(), corner.std((2, 3)).mean()
            error = (0.5 * (x - true)).square().mean()
            table[name] = {"tint": float(tint), "grain": float(grain), "PSNR": float(-10 * error.log10())}
        return table

    def _kinds(self, rgb: Tensor, own: Tensor, theirs: Tensor) -> dict[str, float]:
        seen, told = self._judged(rgb)[0], own != theirs
        return {"its kind": _share(seen == theirs, told), "own kind": _share(seen == own, told)}

    @torch.no_grad()
    def _variance(self) -> dict[str, float]:
        """Means of (v + 1) / 2 at three timesteps: 0 is the fixed small variance, 1 the large one."""
        n, unet, out = self.count, self.family.networks["decoder"], {}
        scheduler, empty = self.family.schedulers["decoder_scheduler"], self.family.tower.tell([""] * self.count)
        decoder = Decoder(self.family.networks["text_proj"], unet, self.true[:n], empty, empty, 1.0)
        size = (unet.config.sample_size,) * 2
        x = F.interpolate(self.held["rgb"][:n].movedim(-1, 1) * 2 - 1, size=size, mode="bilinear", antialias=True)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
        for t in (50, 500, 950):
            noisy = scheduler.add_noise(x, noise, torch.full((n,), t))
            out[f"t={t}"] = float((decoder(noisy, torch.tensor(t)).chunk(2, 1)[1] + 1).mean() / 2)
        return out

    def words(self) -> dict[str, dict[str, float]]:
        """Text diffs: unseen pictures whose colour word is exchanged; what a picture shows after a turn by a share."""
        tower, named = self.family.tower, self.judge.colors[:-1]
        rows = [k for k in range(len(self.true)) if int(self.held["color"][k]) < len(named)][: self.count]
        index, kinds = torch.tensor(rows), list(self.judge.nouns)
        was = self.held["color"][index]
        asked = (was + 1 + index % (len(named) - 1)) % len(named)
        nouns = [self.judge.nouns[kinds[int(self.held["category"][k])]][0] for k in rows]
        told = [tower.tell([f"a {named[int(c)]} {noun}" for c, noun in zip(colors, nouns, strict=True)]).embedding
                for colors in (was, asked)]  # fmt: skip
        change = F.normalize(told[1], dim=1) - F.normalize(told[0], dim=1)
        out = {}
        for turn in (0.0, 0.25, 0.5):
            z = torch.stack([slerp(self.true[k], d, turn) for k, d in zip(rows, change, strict=True)])
            rgb = self._pictures(z, [""] * len(rows))
            kind, color = self._judged(rgb)
            out[f"colour word exchanged, turn {turn:g}"] = {
                "new colour": float((color == asked).float().mean()),
                "old colour": float((color == was).float().mean()),
                "kind": float((kind == self.held["category"][index]).float().mean()),
            }
            self.shown[f"turn {turn:g}"] = rgb
        return out

    def sheet(self, folder: Path) -> Path:
        """One row of pictures per row of the tables."""
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        rows = [torch.cat(list(rgb[:12]), 1) for rgb in self.shown.values()]
        path = folder / "unclip.png"
        Image.fromarray((torch.cat(rows, 0) * 255).byte().numpy()).save(path)
        return path


def _share(right: Tensor, among: Tensor) -> float:
    return float(right[among].float().mean())

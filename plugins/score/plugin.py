"""Scores."""

from core import hookimpl

API = 1

SCORES = (
    ("sds", "SDS", "score distillation sampling (DreamFusion)"),
    ("sjc", "SJC", "score Jacobian chaining: perturb and average"),
    ("vsd", "VSD", "variational score distillation (ProlificDreamer): away from what the renders look like"),
    ("csd", "CSD", "classifier score distillation: only what the text adds"),
    ("nfsd", "NFSD", "noise-free score distillation: towards the text and away from bad pictures"),
    ("ism", "ISM", "interval score matching (LucidDreamer): inverted latents, no random noise"),
    ("sdi", "SDI", "score distillation via inversion: the noise that a sampler would have used"),
    ("hifa", "HiFA", "estimates denoised in several steps, in latents and colours (HiFA)"),
    ("flow", "Flow", "rectified-flow distillation: towards the guided velocity"),
)


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    for name, target, summary in SCORES:
        registry.add("score", name, f"plugins.score.{name}:{target}", summary, needs=["rgb|latent", "text"])
    registry.add("command", "bench-scores", "plugins.score.bench_scores:bench",
                 "each score on pictures alone, with the embedded prior; prints a table, draws a sheet")  # fmt: skip

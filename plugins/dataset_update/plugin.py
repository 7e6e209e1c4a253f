"""Pictures that a prior makes of the scene."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("data", "dataset-update", "plugins.dataset_update.dataset_update:DatasetUpdate",
                 "views of the scene that a prior noises and denoises anew every few steps",
                 needs=["rgb", "text"], gives=["camera", "target", "target-mask"])  # fmt: skip

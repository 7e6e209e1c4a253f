"""Short names of public models (`sd15`, `sdxl`, `flux-dev`), their mirrors and licences."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    """No components: this plugin answers two hooks."""


@hookimpl
def resolve_model(model_id):  # type: ignore[no-untyped-def]
    from plugins.models.aliases import resolve

    return resolve(model_id)


@hookimpl
def public_models():  # type: ignore[no-untyped-def]
    from plugins.models.aliases import listing

    return listing()

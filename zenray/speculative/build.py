"""From settings to drafters and the policy that chooses among them."""

from __future__ import annotations

from collections.abc import Sequence

from zenray.config import ZenrayConfig
from zenray.model.convert import Progress
from zenray.model.load import LoadedModel
from zenray.speculative.draft_model import DraftModel, load_draft_model
from zenray.speculative.drafter import Drafter
from zenray.speculative.gamma_policy import GammaPolicy
from zenray.speculative.model_drafter import ModelDrafter
from zenray.speculative.recycling import RecyclingDrafter
from zenray.speculative.speculator import DraftingSpeculator
from zenray.speculative.step_cost import load_or_measure
from zenray.speculative.suffix import SuffixDrafter


def build_speculator(
    config: ZenrayConfig,
    verifier: LoadedModel,
    remote_drafters: Sequence[Drafter] = (),
    progress: Progress | None = None,
) -> DraftingSpeculator | None:
    """The configured drafters under the configured policy; None for plain decoding.

    The draft pool is a remote drafter: without one, as in a bench of the engine alone, it is left out.
    """
    settings = config.speculation
    if settings.gamma == 0:
        return None
    drafters = build_drafters(config, verifier)
    drafters += [drafter for drafter in remote_drafters if drafter.name in settings.drafters]
    return DraftingSpeculator(drafters, build_policy(config, verifier, progress)) if drafters else None


def build_drafters(
    config: ZenrayConfig, verifier: LoadedModel, draft_model: LoadedModel | None = None
) -> list[Drafter]:
    """Those of this process. `draft_model` is the configured one where it is loaded already."""
    settings = config.speculation
    drafters: list[Drafter] = []
    for name in settings.drafters:
        if name == "draft_model":
            draft = DraftModel.from_settings(draft_model or load_draft_model(config, verifier.tokenizer), config.draft)
            drafters.append(ModelDrafter(draft, verifier))
        elif name == "suffix":
            drafters.append(SuffixDrafter(settings.session_tokens, settings.max_sessions, verifier.tokenizer.fim))
        elif name == "recycling":
            drafters.append(RecyclingDrafter())
    return drafters


def build_policy(config: ZenrayConfig, verifier: LoadedModel, progress: Progress | None = None) -> GammaPolicy:
    """Over the verifier's step costs, which are measured when they are not known."""
    settings = config.speculation
    return GammaPolicy(load_or_measure(verifier, progress), settings.gamma, settings.max_gamma)

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
    draft_model: LoadedModel | None = None,
) -> DraftingSpeculator | None:
    """The configured drafters; None when there are none. `draft_model` is the configured one where it is loaded.

    The draft pool is a remote drafter: without one, as in a bench of the engine alone, it is left out.
    """
    settings = config.speculation
    drafters: list[Drafter] = []
    for name in settings.drafters:
        if name == "draft_model":
            draft_model = draft_model or load_draft_model(config)
            drafters.append(ModelDrafter(DraftModel.from_settings(draft_model, config.draft), verifier))
        elif name == "suffix":
            drafters.append(SuffixDrafter(settings.session_tokens, settings.max_sessions, verifier.tokenizer.fim))
        elif name == "recycling":
            drafters.append(RecyclingDrafter())
    drafters += [drafter for drafter in remote_drafters if drafter.name in settings.drafters]
    if not drafters or settings.gamma == 0:
        return None
    policy = GammaPolicy(load_or_measure(verifier, progress), settings.gamma, settings.max_gamma)
    return DraftingSpeculator(drafters, policy)

"""The one validated configuration tree. Profiles are YAML files in `zenray/profiles/`.

A configuration is a profile, overlaid by a user's file, overlaid by `--set key=value`. Unknown keys
are errors that name the nearest right key. Units stand in the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

WeightFormat = Literal["float32", "bf16", "int8", "int4", "mixed"]
"""mixed: 4-bit source blocks to int4 groups of 32, wider ones to int8 (see `zenray.ops.weights`)."""


class Settings(BaseModel):
    """Frozen section; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """Which model is served, and how its weights are held."""

    name: str = Field(description="Catalog name, a path to a GGUF file or a safetensors folder, or preset:NAME.")
    weight_format: WeightFormat = "mixed"
    device: str = Field("cpu", description="torch device, such as cpu or cuda:0.")
    context_length: int = Field(8192, ge=16, description="Prompt plus completion, in tokens.")
    num_threads: int = Field(0, ge=0, description="CPU threads of the engine; 0 takes the cores given to the process.")
    random_seed: int = Field(0, description="Weights of a preset are drawn from this seed.")
    preset_overrides: dict[str, int] = Field(
        default_factory=dict, description="Scale a preset down: architecture fields such as num_layers: 2."
    )


class EngineSettings(Settings):
    """Scheduling and memory of one engine."""

    kv_cache_mib: float = Field(512, gt=0, description="Memory of the KV block pool.")
    block_size: int = Field(16, ge=1, le=256, description="Tokens per KV block.")
    max_running_sequences: int = Field(16, ge=1)
    max_waiting_sequences: int = Field(64, ge=1, description="Beyond this, RESOURCE_EXHAUSTED.")
    max_step_tokens: int = Field(512, ge=1, description="Token budget of one step: the prefill chunk.")
    mixed_step_tokens: int = Field(
        128, ge=1, description="Token budget of a step in which somebody decodes, so that a prompt stalls no stream."
    )
    batch_step_tokens: int = Field(
        64, ge=1, description="Token budget of a step of batch work alone: an interactive newcomer waits for its end."
    )
    batch_tokens_beside_interactive: int = Field(
        8, ge=0, description="Tokens of batch work in a step that an interactive request takes part in."
    )
    prefix_cache: bool = True


MAX_GAMMA = 64


def _is_gamma(value: object) -> object:
    """One error for the field instead of one for each of its kinds."""
    if value == "auto" or (type(value) is int and 0 <= value <= MAX_GAMMA):
        return value
    raise ValueError(f"auto, or an integer from 0 to {MAX_GAMMA}")


DrafterName = Literal["draft_model", "draft_pool", "suffix", "recycling"]


class SpeculationSettings(Settings):
    """Who drafts for the verifier, and how much. None of this changes a token."""

    drafters: tuple[DrafterName, ...] = Field(
        ("suffix", "recycling"),
        description="Any of draft_model (in the verifier's process), draft_pool (its replicas), suffix (copies of "
        "earlier text) and recycling (the verifier's own former candidates); empty decodes plainly.",
    )
    gamma: Annotated[Literal["auto"] | Annotated[int, Field(ge=0, le=MAX_GAMMA)], BeforeValidator(_is_gamma)] = Field(
        "auto", description="Draft tokens per round; auto chooses by measured cost and acceptance."
    )
    max_gamma: int = Field(MAX_GAMMA, ge=1, le=MAX_GAMMA, description="Longest draft that auto may choose.")
    draft_timeout_ms: float = Field(
        200, gt=0, description="Longest wait for the draft pool in a round; a replica silent for longer is left alone."
    )
    session_tokens: int = Field(65_536, ge=0, description="Tokens of a session's recent requests kept to copy from.")
    max_sessions: int = Field(64, ge=1, description="Sessions remembered, least recently used forgotten.")


class DraftSettings(Settings):
    """The draft model, held by the verifier itself or by the replicas of the draft pool."""

    model: str | None = None
    weight_format: WeightFormat = "int4"
    num_replicas: int = Field(1, ge=0, description="Replicas of the draft pool.")
    num_cpus: float = Field(0.1, ge=0, description="CPUs Ray reserves for a replica.")
    num_threads: int = Field(0, ge=0, description="CPU threads of a replica; 0 takes the cores given to it.")
    kv_cache_mib: float = Field(128, gt=0, description="Memory of the draft model's own KV blocks.")
    head_tokens: int = Field(
        0, ge=0, description="Restrict the draft's output head to this many frequent code tokens; 0 keeps all."
    )


class ExpertSettings(Settings):
    """Where the experts of an MoE model live. None of this changes a token."""

    num_shards: int = Field(
        1, ge=1, le=64, description="Processes that share a verifier's experts, its own among them; 1 keeps all there."
    )
    redundant_experts: int = Field(
        0, ge=0, description="Copies per layer beyond one of each expert: the busiest experts get them."
    )
    shard_memory_mib: float = Field(
        0, ge=0, description="Most expert weights one shard holds, also after it took over a lost one's; 0 is no bound."
    )
    leader_memory_mib: float = Field(
        0,
        ge=0,
        description="The same for the verifier's own process, which holds everything else too; 0: as the others.",
    )
    transport: Literal["auto", "unix", "tcp", "gloo", "nccl"] = Field(
        "auto", description="auto: unix between processes of one machine, tcp between machines."
    )
    silence_timeout_ms: float = Field(
        500, gt=0, description="A shard that shows no sign of life for so long during a step is lost."
    )
    call_timeout_s: float = Field(30, gt=0, description="Longest that one layer of a step may take on a shard.")
    recovery_timeout_s: float = Field(
        20, ge=0, description="How long running requests wait for a place for lost experts before they fail."
    )
    rebalance_period_s: float = Field(60, ge=0, description="How often observed loads are looked at; 0 never.")
    shard_num_cpus: float = Field(0.5, ge=0, description="CPUs Ray reserves for a shard.")
    shard_num_gpus: float = Field(0, ge=0)
    num_threads: int = Field(0, ge=0, description="CPU threads of a shard; 0 takes the cores given to it.")
    spread: bool = Field(False, description="Put shards on different machines where there are any.")


class RequestBoundsSettings(Settings):
    """The most a request may ask for; beyond is INVALID_ARGUMENT."""

    max_tokens: int = Field(4096, ge=1)
    max_n: int = Field(8, ge=1)
    max_prompts: int = Field(128, ge=1, description="Prompts in the list of one OpenAI request.")
    max_logprobs: int = Field(20, ge=0)
    max_stop: int = Field(16, ge=0)
    max_stop_length: int = Field(256, ge=1, description="Characters of one stop string.")
    max_request_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    max_deadline_ms: int = Field(600_000, ge=1)
    max_snippets: int = Field(64, ge=0, description="Pieces of code a client adds to one request.")
    max_snippet_bytes: int = Field(256 * 1024, ge=0, description="UTF-8 bytes of those of one request.")
    max_stream_events: int = Field(1_000_000, ge=1, description="Document events of one stream.")


class RequestDefaults(Settings):
    """What a request that says nothing gets."""

    temperature: float = Field(0.0, ge=0, le=10)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(128, ge=0)
    deadline_ms: int = Field(60_000, ge=1)


SnippetSource = Literal[
    "SAME_FILE", "OPEN_FILE", "RECENT_EDIT", "DEFINITION", "IMPORT", "VIEWED", "CLIPBOARD", "SNIPPET"
]


class ContextSettings(Settings):
    """The shape of an assembled prompt, and what is kept of editors."""

    max_prompt_tokens: int = Field(2048, ge=8, description="Budget of an infill prompt; texts beyond it are trimmed.")
    suffix_share: float = Field(0.25, ge=0, le=1, description="Part of the budget kept for text after the cursor.")
    snippet_share: float = Field(
        0.4, ge=0, le=1, description="Most of the budget that code from other places gets; 0 looks at none."
    )
    layout: Literal["auto", "psm", "spm"] = Field(
        "auto",
        description="Order of the text around the cursor: prefix, suffix, middle or suffix, prefix, middle; auto: as "
        "the catalog says the model was trained.",
    )
    source_weights: dict[SnippetSource, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="How much snippets of a source count, such as CLIPBOARD: 0 for never; those not named keep theirs.",
    )
    mode: Literal["local", "cloud"] = Field(
        "local",
        description="local: nothing leaves this machine, so verifiers elsewhere are refused and workspaces on this "
        "machine may be read through their index. cloud: verifiers may be anywhere and see the assembled window.",
    )
    max_sessions: int = Field(256, ge=1, description="Editor sessions, least recently used forgotten.")
    max_session_mib: float = Field(32, gt=0, description="Documents of one session.")
    max_total_mib: float = Field(512, gt=0, description="Documents of all sessions.")
    version_wait_ms: float = Field(
        50, ge=0, description="How long a request waits for a document version that is on its way."
    )


class SuggestionSettings(Settings):
    """What is done with completions besides generating them."""

    max_finished: int = Field(8, ge=0, description="Finished completions of a session kept to be typed through.")
    outcome_log: str | None = Field(
        None, description="Folder for a Parquet log of what became of suggestions; none writes nothing."
    )
    log_source_text: bool = Field(False, description="Let that log hold source text.")


class ServerSettings(Settings):
    """Where the platform listens and how it behaves under load and at its end."""

    host: str = Field("127.0.0.1", description="Loopback by default; anything else is a decision.")
    grpc_port: int = Field(9000, ge=0, le=65535)
    http_port: int = Field(8000, ge=0, le=65535)
    dashboard_port: int | None = Field(
        8265,
        ge=0,
        le=65535,
        description="Ray's dashboard with its job server, on the loopback whatever `host` is; the next free port where "
        "this one is taken; null starts none. An existing cluster has its own.",
    )
    verifier_replicas: int = Field(1, ge=1)
    verifier_num_cpus: float = Field(1.0, gt=0)
    verifier_num_gpus: float = Field(0.0, ge=0)
    aggregator_replicas: int = Field(1, ge=1)
    max_ongoing_requests: int = Field(256, ge=1)
    health_check_period_s: float = Field(2.0, gt=0)
    health_check_timeout_s: float = Field(5.0, gt=0)
    stall_timeout_s: float = Field(
        60.0, gt=0, description="A verifier whose engine ends no step for this long is replaced."
    )
    failover_timeout_s: float = Field(
        30.0, ge=0, description="How long a request whose verifier died waits for another one."
    )
    affinity_slack: int = Field(
        4, ge=0, description="Requests by which a session's own verifier may be busier than the least busy one."
    )
    drain_timeout_s: float = Field(10.0, ge=0)
    start_timeout_s: float = Field(300.0, gt=0)


class ZenrayConfig(Settings):
    """Everything `zenray serve` needs to know."""

    model: ModelSettings
    engine: EngineSettings = Field(default_factory=EngineSettings)
    speculation: SpeculationSettings = Field(default_factory=SpeculationSettings)
    draft: DraftSettings = Field(default_factory=DraftSettings)
    experts: ExpertSettings = Field(default_factory=ExpertSettings)
    bounds: RequestBoundsSettings = Field(default_factory=RequestBoundsSettings)
    defaults: RequestDefaults = Field(default_factory=RequestDefaults)
    context: ContextSettings = Field(default_factory=ContextSettings)
    suggestion: SuggestionSettings = Field(default_factory=SuggestionSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)

    @property
    def has_draft_pool(self) -> bool:
        """Replicas of the draft pool run, because verifiers ask them."""
        return "draft_pool" in self.speculation.drafters and self.speculation.gamma != 0 and self.draft.num_replicas > 0

    @model_validator(mode="after")
    def _draft_model_is_named(self) -> ZenrayConfig:
        needing = [name for name in self.speculation.drafters if name in ("draft_model", "draft_pool")]
        if needing and self.draft.model is None:
            raise ValueError(
                f"speculation.drafters names {' and '.join(needing)}, which needs draft.model: a catalog name, "
                "such as qwen2.5-coder-0.5b"
            )
        return self


def home() -> Path:
    """Where zenray keeps models and caches: $ZENRAY_HOME, else ~/.cache/zenray."""
    import os

    return Path(os.environ.get("ZENRAY_HOME") or Path.home() / ".cache" / "zenray")

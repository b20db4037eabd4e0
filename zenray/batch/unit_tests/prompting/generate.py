"""The stage that asks the model: a row with a mined function gets its candidates."""

from __future__ import annotations

from pydantic import Field

from zenray.batch.job import Generator
from zenray.batch.rows import Row, derive_seed
from zenray.batch.unit_tests.candidates.collect import Answer, collect_implementations, collect_tests, not_asked
from zenray.batch.unit_tests.candidates.implementations import why_not_asked
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import (
    CANDIDATES,
    FUNCTION,
    MODEL,
    PROMPT_STYLE,
    Candidates,
    Implementation,
    MinedFunction,
    RejectedText,
)
from zenray.batch.unit_tests.prompting.prompts import Opening, Prompt, PromptStyle, PromptWriter
from zenray.batch.unit_tests.prompting.prompts_source import locate
from zenray.config import Settings
from zenray.engine.request import FinishReason, Limits, Sampling
from zenray.errors import InvalidRequest


class GenerateSettings(Settings):
    """How candidates are asked for. All of it decides the bytes of a job's output."""

    style: PromptStyle = Field(PromptStyle.AUTO, description="How the model is asked: base, instruct or auto.")
    openings: tuple[Opening, ...] = Field(
        (Opening.NAME, Opening.RESULTS), description="How answers with tests are begun: name, results, errors."
    )
    num_test_answers: int = Field(1, ge=0, description="Answers for each opening; each may hold several tests.")
    num_implementations: int = Field(2, ge=0, description="Re-implementations asked for.")
    max_test_tokens: int = Field(128, ge=1, description="Of one answer with tests.")
    max_implementation_tokens: int = Field(160, ge=1, description="Of one re-implementation.")
    max_prompt_tokens: int = Field(1024, ge=64, description="Longer prompts show less; functions that do not fit fail.")
    max_tests: int = Field(24, ge=1, description="Candidates of one function; the others are not validated.")
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)


class GenerateStage:
    """A `zenray.batch.job.Stage`. A function's requests go one after the other: each finds the prompt of the one
    before in the prefix cache, and other rows fill the batch meanwhile."""

    def __init__(self, settings: GenerateSettings, job_seed: int) -> None:
        self._settings, self._job_seed = settings, job_seed
        self._generator: Generator | None = None
        self._prompts: PromptWriter | None = None

    async def open(self, generator: Generator | None) -> None:
        """Raises InvalidRequest for a style that the model does not know."""
        assert generator is not None, "the plan of this stage asks for the model"
        longest = max(self._settings.max_test_tokens, self._settings.max_implementation_tokens)
        room = min(self._settings.max_prompt_tokens, generator.model.context_length - longest)
        self._generator = generator
        self._prompts = PromptWriter(generator.tokenizer, self._settings.style, room)

    async def process(self, row: Row) -> Row:
        """Raises InvalidRequest for a function whose prompt is too long, which becomes the row's error."""
        function = from_row(MinedFunction, row[FUNCTION])
        assert self._generator is not None and self._prompts is not None, "open comes first"
        asked = {MODEL: to_row(self._generator.model), PROMPT_STYLE: self._prompts.style.value}
        return {**row, **asked, CANDIDATES: to_row(await self._candidates(function))}

    async def close(self) -> None:
        self._generator = self._prompts = None

    async def _candidates(self, function: MinedFunction) -> Candidates:
        assert self._generator is not None and self._prompts is not None, "open comes first"
        settings = self._settings
        asked = _Asked(function, self._generator, settings, self._job_seed)
        test_answers: list[Answer] = []
        for opening in settings.openings:
            prompt = self._prompts.tests(function, opening)
            count, max_tokens = settings.num_test_answers, settings.max_test_tokens
            test_answers += await asked.answers(f"tests:{opening.value}", prompt, count, max_tokens)
        tests, rejected = collect_tests(function, test_answers, settings.max_tests)
        implementations, refused = await self._implementations(function, self._prompts, asked)
        return Candidates(
            tuple(tests), tuple(implementations), (*rejected, *refused), asked.num_tokens, tuple(asked.seeds)
        )

    async def _implementations(
        self, function: MinedFunction, prompts: PromptWriter, asked: _Asked
    ) -> tuple[list[Implementation], list[RejectedText]]:
        count, max_tokens = self._settings.num_implementations, self._settings.max_implementation_tokens
        if not count:
            return [], []
        if reason := why_not_asked(function):
            return [], [not_asked(reason)]
        try:
            source = locate(function)
            prompt = prompts.implementation(function, source)
        except (ValueError, InvalidRequest) as error:
            return [], [not_asked(str(error))]
        return collect_implementations(
            function, source, await asked.answers("implementations", prompt, count, max_tokens)
        )


class _Asked:
    """The requests of one function, and what they took."""

    def __init__(
        self, function: MinedFunction, generator: Generator, settings: GenerateSettings, job_seed: int
    ) -> None:
        self._function, self._generator = function, generator
        self._settings, self._job_seed = settings, job_seed
        self.num_tokens = 0
        self.seeds: list[int] = []

    async def answers(self, purpose: str, prompt: Prompt, count: int, max_tokens: int) -> list[Answer]:
        seed = derive_seed(self._job_seed, self._function.row_id, purpose)
        sampling = Sampling(self._settings.temperature, top_p=self._settings.top_p, seed=seed, n=count)
        choices = await self._generator.generate(prompt.token_ids, sampling, Limits(max_tokens, stop=prompt.stop))
        self.seeds.append(seed)
        self.num_tokens += sum(len(choice.token_ids) for choice in choices)
        return [
            Answer(prompt.answer + choice.text, True, choice.finish_reason is FinishReason.LENGTH) for choice in choices
        ]

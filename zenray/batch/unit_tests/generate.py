"""The stage that asks the model: a row with a mined function gets its candidates."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from zenray.batch.job import Generated, Generator
from zenray.batch.rows import Row, derive_seed
from zenray.batch.unit_tests.candidates import Answer, collect_implementations, collect_tests, not_asked
from zenray.batch.unit_tests.candidates_implementations import why_not_asked
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import CANDIDATES, FUNCTION, MODEL, Candidates, MinedFunction, RejectedText
from zenray.batch.unit_tests.prompts import Prompt, PromptStyle, PromptWriter
from zenray.batch.unit_tests.prompts_source import FocalSource, locate
from zenray.config import Settings
from zenray.engine.request import FinishReason, Limits, Sampling


class GenerateSettings(Settings):
    """How candidates are asked for. All of it decides the bytes of a job's output."""

    style: PromptStyle = Field(PromptStyle.AUTO, description="How the model is asked: base, instruct or auto.")
    hints: tuple[str, ...] = Field(
        ("",), description="What the first test's name of an answer ends in, such as edge cases."
    )
    num_test_answers: int = Field(2, ge=0, description="Answers for each hint; each may hold several tests.")
    num_implementations: int = Field(2, ge=0, description="Re-implementations asked for.")
    max_test_tokens: int = Field(160, ge=1, description="Of one answer with tests.")
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
        assert self._generator is not None, "open comes first"
        model = to_row(self._generator.model)
        return {**row, MODEL: model, CANDIDATES: to_row(await self._candidates(function))}

    async def close(self) -> None:
        self._generator = self._prompts = None

    async def _candidates(self, function: MinedFunction) -> Candidates:
        settings, prompts = self._settings, self._prompts
        assert prompts is not None, "open comes first"
        asked = _Asked(self, function)
        test_answers: list[Answer] = []
        for hint in settings.hints:
            prompt = prompts.tests(function, hint)
            test_answers += await asked.answers(
                f"tests:{hint}", prompt, settings.num_test_answers, settings.max_test_tokens
            )
        tests, rejected = collect_tests(function, test_answers, settings.max_tests)
        source = _implementable(function)
        if isinstance(source, RejectedText) or settings.num_implementations == 0:
            refused = [source] if isinstance(source, RejectedText) else []
            return Candidates(tuple(tests), (), (*rejected, *refused), asked.num_tokens, tuple(asked.seeds))
        prompt = prompts.implementation(function, source)
        answers = await asked.answers(
            "implementations", prompt, settings.num_implementations, settings.max_implementation_tokens
        )
        implementations, refused = collect_implementations(function, source, answers)
        return Candidates(
            tuple(tests), tuple(implementations), (*rejected, *refused), asked.num_tokens, tuple(asked.seeds)
        )

    async def request(self, prompt: Prompt, seed: int, count: int, max_tokens: int) -> tuple[Generated, ...]:
        assert self._generator is not None, "open comes first"
        sampling = Sampling(self._settings.temperature, top_p=self._settings.top_p, seed=seed, n=count)
        return await self._generator.generate(prompt.token_ids, sampling, Limits(max_tokens, stop=prompt.stop))

    @property
    def job_seed(self) -> int:
        return self._job_seed


class _Asked:
    """The requests of one function."""

    def __init__(self, stage: GenerateStage, function: MinedFunction) -> None:
        self._stage, self._function = stage, function
        self.num_tokens = 0
        self.seeds: list[int] = []

    async def answers(self, purpose: str, prompt: Prompt, count: int, max_tokens: int) -> list[Answer]:
        seed = derive_seed(self._stage.job_seed, self._function.row_id, purpose)
        self.seeds.append(seed)
        choices = await self._stage.request(prompt, seed, count, max_tokens)
        self.num_tokens += sum(len(choice.token_ids) for choice in choices)
        return list(_answers(prompt, choices))


def _answers(prompt: Prompt, choices: Iterable[Generated]) -> Iterable[Answer]:
    for choice in choices:
        is_cut = choice.finish_reason is FinishReason.LENGTH
        yield Answer(prompt.answer + choice.text, begins_in_code=True, is_cut=is_cut)


def _implementable(function: MinedFunction) -> FocalSource | RejectedText:
    """Where the function stands in its module, or why nobody is asked to write it anew."""
    if reason := why_not_asked(function):
        return not_asked(reason)
    try:
        return locate(function)
    except ValueError as error:
        return not_asked(str(error))

"""Files that are broken in many ways end the child process that tries them, and nothing else."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from polling import until

from memoryd.embeddings.trial import Trial, try_model
from memoryd.errors import ModelFileError

FLIPPED_KINDS = ("bert", "xlm-roberta", "qwen3", "gemma-embedding")
FLIPS = 5
CUTS = (1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.2, 0.9, 0.999999)


async def try_all(files: Sequence[Path]) -> list[Trial | ModelFileError]:
    """Try some files, two at a time; whatever else they raise is raised here."""
    places = asyncio.Semaphore(2)

    async def try_one(file: Path) -> Trial | ModelFileError:
        async with places:
            try:
                return await try_model(file)
            except ModelFileError as error:
                return error

    return list(await asyncio.gather(*map(try_one, files)))


def damaged(file: Path, folder: Path, name: object, damage: Callable[[bytes], bytes]) -> Path:
    copy = folder / f"{file.stem}-{name}.gguf"
    copy.write_bytes(damage(file.read_bytes()))
    return copy


def flip(data: bytes, seed: int) -> bytes:
    """Return `data` with some bits flipped: a few anywhere, or in what describes the model."""
    chosen = random.Random(seed)  # noqa: S311 - the same bits in every run
    flipped = bytearray(data)
    end = len(data) if seed % 3 == 0 else min(len(data), 6000 if seed % 3 == 1 else 40_000)
    for _ in range(chosen.choice([1, 3, 20])):
        flipped[chosen.randrange(4, end)] ^= 1 << chosen.randrange(8)
    return bytes(flipped)


@pytest.mark.parametrize("kind", ["nomic-bert", "qwen3", "bert-rank"])
async def test_a_trial_tells_what_a_file_is(tiny_files: dict[str, Path], kind: str) -> None:
    facts = (await try_model(tiny_files[kind])).facts
    assert facts.dimensions == 64
    assert (facts.pooling == "rank") == kind.endswith("-rank")
    assert facts.context_tokens >= 128
    assert facts.vocabulary_size > 200
    assert facts.weight_type == "f32"
    assert facts.memory_bytes > 100_000


async def test_a_trial_takes_the_pooling_that_it_is_told(tiny_files: dict[str, Path]) -> None:
    assert (await try_model(tiny_files["bert"], pooling="cls")).facts.pooling == "cls"


async def test_a_trial_measures_what_it_is_told(tiny_files: dict[str, Path]) -> None:
    file = tiny_files["bert"]
    assert (await try_model(file)).table == []
    table = (await try_model(file, extent="measure")).table
    assert len(table) > 3
    assert all(row.tokens_per_s > 0 for row in table)
    assert {row.weight_type for row in table} == {""}
    table = (await try_model(file, extent="measure weights")).table
    assert {row.weight_type for row in table} == {"", "bf16"}


async def test_files_that_were_cut_short_are_refused(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    file = tiny_files["bert"]
    cut = [
        damaged(file, tmp_path, part, lambda data, part=part: data[: int(len(data) * part)])
        for part in CUTS
    ]
    for each, result in zip(cut, await try_all(cut), strict=True):
        assert isinstance(result, ModelFileError)
        assert str(each) in result.message


@pytest.mark.parametrize("kind", FLIPPED_KINDS)
async def test_files_with_flipped_bits_work_or_are_refused(
    tiny_files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    flipped = [
        damaged(tiny_files[kind], tmp_path, seed, lambda data, seed=seed: flip(data, seed))
        for seed in range(FLIPS)
    ]
    results = await asyncio.wait_for(try_all(flipped), 60)
    for each, result in zip(flipped, results, strict=True):
        assert isinstance(result, Trial) or str(each) in result.message
    assert any(isinstance(result, ModelFileError) for result in results)


async def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    contents = [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"junk" * 1000]
    files = [tmp_path / f"{number}.gguf" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    for file, result in zip(files, await try_all(files), strict=True):
        assert isinstance(result, ModelFileError)
        assert str(file) in result.message


async def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.gguf"):
        await try_model(tmp_path / "missing.gguf")


async def test_a_trial_that_is_cancelled_ends_its_process(tiny_files: dict[str, Path]) -> None:
    trying = asyncio.create_task(try_model(tiny_files["bert"], extent="measure"))
    await until(lambda: bool(children_that_try()))
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(trying, 5)
    assert not children_that_try()


def children_that_try() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "memoryd.embeddings.trial" in child.cmdline()]

import asyncio
from pathlib import Path

import numpy as np
import pytest
from toys import ToyLoader, toy_vector

from memoryd.embeddings.engine import Engine
from memoryd.errors import ModelFileError, ModelNotFoundError, StoppingError


async def test_a_model_is_loaded_once_however_many_ask(models_dir: Path) -> None:
    loader = ToyLoader(models_dir)
    async with Engine(loader) as engine:
        models = await asyncio.gather(*(engine.model("Toy") for _ in range(20)))
        assert loader.loads == 1
        assert len(set(map(id, models))) == 1


async def test_a_load_that_failed_is_tried_again(models_dir: Path) -> None:
    loader = ToyLoader(models_dir, failures=1)
    async with Engine(loader) as engine:
        results = await asyncio.gather(
            *(engine.model("toy") for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, ModelFileError) for result in results)
        assert not engine.is_loaded("toy")
        model = await engine.model("toy")
        assert engine.is_loaded("toy")
        assert loader.loads == 2
        assert np.allclose((await model.embed(["cat"])).vectors, toy_vector("cat"))


async def test_a_caller_who_leaves_does_not_stop_the_load(models_dir: Path) -> None:
    loader = ToyLoader(models_dir)
    async with Engine(loader) as engine:
        leaving, staying = (asyncio.create_task(engine.model("toy")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).spec.name == "toy"
        assert loader.loads == 1


async def test_an_unknown_model_is_not_found_and_loads_nothing(models_dir: Path) -> None:
    loader = ToyLoader(models_dir)
    async with Engine(loader) as engine:
        with pytest.raises(ModelNotFoundError) as missing:
            await engine.model("gpt-4")
        assert missing.value.model == "gpt-4"
        assert loader.loads == 0


async def test_leaving_the_engine_frees_its_models(models_dir: Path) -> None:
    loader = ToyLoader(models_dir)
    async with Engine(loader) as engine:
        await engine.model("toy")
    assert loader.backend.is_closed
    assert loader.backend.closed_lanes == len(loader.backend.lanes)


async def test_leaving_the_engine_does_not_wait_for_a_load_forever(models_dir: Path) -> None:
    loader = ToyLoader(models_dir)
    async with asyncio.timeout(2), Engine(loader) as engine:
        loading = asyncio.create_task(engine.model("toy"))
        await asyncio.sleep(0)
    with pytest.raises(StoppingError):
        await loading

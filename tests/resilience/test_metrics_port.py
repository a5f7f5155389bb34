"""`memoryd serve --metrics-port`."""

import asyncio
import re
import socket
from pathlib import Path

import aiohttp
from memoryd_process import START_TIMEOUT_S, command, environment, serving


async def test_the_port_of_the_metrics_is_told_and_served(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    async with serving(
        data_dir, models_dir, "--measure-models", "false", "--metrics-port", "0"
    ) as memoryd:
        [url] = re.findall(r"metrics are at (\S+)", memoryd.said)
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                assert "memoryd_loaded_models 1.0" in await answer.text()
            async with session.get(memoryd.url + "/metrics") as answer:
                assert "memoryd_loaded_models 1.0" in await answer.text()


async def test_a_port_that_another_uses_is_told_with_its_option(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            *command(data_dir, models_dir, "--measure-models", "false", "--metrics-port", port),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert f"port {port}" in said.decode()
    assert "choose another with --metrics-port" in said.decode()

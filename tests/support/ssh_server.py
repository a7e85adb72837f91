"""A machine that one reaches by ssh, for the tests: this one, by asyncssh's own server on a free port."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncssh


async def _run(process: Any) -> None:
    """Run a command as a login shell does; it ends with its connection."""
    child = await asyncio.create_subprocess_shell(
        process.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    await process.redirect(stdout=child.stdout, stderr=child.stderr)
    ended = [asyncio.ensure_future(child.wait()), asyncio.ensure_future(process.wait_closed())]
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    else:
        process.exit(child.returncode)


@contextmanager
def ssh_server() -> Iterator[dict[str, Any]]:
    """Serve on 127.0.0.1; yields what `asyncssh.connect` needs to come in."""
    host, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    allowed = asyncssh.import_authorized_keys(user.export_public_key().decode())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ssh")
    thread.start()

    async def begin() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=allowed, process_factory=_run, encoding=None
        )

    async def end(server: Any) -> None:
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 20)

    try:
        server = asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
        yield {
            "port": server.get_port(),
            "username": "anyone",
            "client_keys": [user],
            "known_hosts": ([host.convert_to_public()], [], []),
        }
        asyncio.run_coroutine_threadsafe(end(server), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()

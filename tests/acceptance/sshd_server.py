"""An OpenSSH server on the loopback address, for machines that tests reach by ssh."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Sequence

import pytest
from inner_runs import wait_until

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh")), reason="needs OpenSSH's server and client"
)


class Server(NamedTuple):
    """A server that runs.

    :param client: the client's configuration.
    """

    client: Path
    pid: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def sshd(
    directory: Path, environ: Mapping[str, str], hosts: Sequence[str] = ("node7",)
) -> Iterator[Server]:
    """A server on the loopback address, for this user and a key made for it.

    :param environ: what sessions have in their environment, besides what inner runs set.
    :param hosts: names of the machine.
    """
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)],
            check=True,
            timeout=60,
        )
    port = free_port()
    # Without start-up files of the shell: they take their time, and may leave locks when killed.
    given = {"HOME": str(directory), **environ}
    set_env = " ".join(f'"{name}={text}"' for name, text in given.items())
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host_key\n"
        f"AuthorizedKeysFile {directory}/user_key.pub\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"AcceptEnv FKIT_INNER_* PYTHONPATH TMPDIR\nMaxSessions 100\nMaxStartups 100\n"
        f"SetEnv {set_env}\n"
    )
    client = directory / "ssh_config"
    client.write_text(
        f"Host {' '.join(hosts)}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {directory}/user_key\n  IdentitiesOnly yes\n  BatchMode yes\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        "  SendEnv FKIT_INNER_* PYTHONPATH TMPDIR\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a privileged one insists on being jailed
    with subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(directory / "sshd_config")], stderr=subprocess.PIPE
    ) as server:
        try:
            if not wait_until(lambda: _listens(port) or server.poll() is not None, 10):
                pytest.fail("sshd does not listen")
            if server.poll() is not None:
                assert server.stderr is not None
                pytest.fail(server.stderr.read().decode())
            yield Server(client, server.pid)
        finally:
            server.kill()

"""Opens gateways for workers on other machines, so that nobody waits for a machine without end."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Mapping, Sequence

import execnet

from ...config.deadline import Deadline
from ...gpu.answers import FailedError
from ...gpu.slices import handshake
from ...gpu.throwaway import output_of
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, suppress, threading, time
from .clients import Client, NotReachedError, open_within
from .engines import cancelling

if TYPE_CHECKING:
    from execnet import Gateway, XSpec

own_builtins(globals())

_ATTEMPTS = 2
"""How often a machine that was reached before is tried again."""

_PAUSE = 1.0
"""Seconds between them."""

_CANCEL = 10.0
"""Seconds for the command that cancels a step."""

_LAST_WAIT = 5.0
"""Seconds at the end of a run for what is still being ended elsewhere."""

_SLICE = 0.1
"""Seconds of it from look to look at what is still being opened."""

MakeGateway = Callable[["XSpec"], "Gateway"]


class Leftover(NamedTuple):
    """The process of a worker whose connection is lost.

    :param pid: on its machine; `began`: when it began, as that machine counts.
    :param step: of Slurm, "" for none.
    """

    pid: int
    began: str
    step: str = ""


class _Opening:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.gateway: Gateway | None = None
        self.problem = ""


class Openings:
    """Opens gateways: those to one machine one after the other, to several at once.

    :param clients: by the ``python=`` of execnet's specification, which each has of its own.
    :param directory: the current one of workers.
    """

    def __init__(self, clients: Mapping[str, Client], limit: float, directory: str) -> None:
        self._clients = clients
        self._limit = limit
        self._directory = directory
        self._openings: dict[str, _Opening] = {}
        self._threads: list[threading.Thread] = []
        self._turns = {client.machine.name: threading.Lock() for client in clients.values()}
        self._gone: dict[str, str] = {}
        self._beginning: set[Client] = set()
        self._over = False

    def serves(self, spec: XSpec) -> bool:
        return spec.python in self._clients

    def begin(self, specs: Sequence[XSpec], make: MakeGateway) -> None:
        """Begin to open gateways.

        :param make: execnet's function.
        """
        for name in self._turns:
            its = [
                (each, self._openings.setdefault(str(each.python), _Opening()))
                for each in specs
                if self.serves(each) and self._client(each).machine.name == name
            ]
            if its:
                self._in_thread(functools.partial(self._open_all, its, make))

    def take(self, spec: XSpec, make: MakeGateway) -> Gateway:
        """The gateway, once it is there.

        :raises NotReachedError: if it can't be opened.
        """
        opening = self._openings.pop(str(spec.python), None)
        if opening is None:  # of a worker that takes a dead one's place in xdist's own way
            opening = _Opening()
            self._open(spec, opening, make, None, 1)
        opening.done.wait()  # each attempt has its limit
        if opening.gateway is None:
            raise NotReachedError(opening.problem)
        return opening.gateway

    def reopen(
        self, spec: XSpec, make: MakeGateway, left: Leftover | None, then: Callable[[str], None]
    ) -> None:
        """Open another gateway in the place of one that is lost, and end what is left there.

        :param then: called in a thread, when :meth:`take` has it, or with why there is none.
        """
        opening = self._openings[str(spec.python)] = _Opening()

        def work() -> None:
            self._cancel(spec, left)
            self._open(spec, opening, make, left, _ATTEMPTS)
            then(opening.problem)

        self._in_thread(work)

    def clean(self, spec: XSpec, left: Leftover) -> None:
        """End what may be left of a worker that is not replaced."""

        def work() -> None:
            self._cancel(spec, left)
            group = execnet.Group()
            text = self._client(spec).specification
            self._open(spec, _Opening(), lambda _: group.makegateway(text), left, _ATTEMPTS)
            group.terminate(1.0)

        self._in_thread(work)

    def abandon(self, spec: XSpec) -> None:
        """Nobody is going to take this one."""
        opening = self._openings.pop(str(spec.python), None)
        if opening is not None and opening.gateway is not None:
            opening.gateway.exit()

    def close(self) -> None:
        """The run is over: open no more, and wait for what is being ended, within a limit."""
        self._over = True
        deadline = Deadline(_LAST_WAIT)
        for thread in self._threads:
            while thread.is_alive() and not deadline.is_over:
                for client in tuple(self._beginning):
                    client.kill()
                thread.join(min(_SLICE, deadline.left))
        for client in self._clients.values():
            client.kill()

    # --- in threads ---

    def _client(self, spec: XSpec) -> Client:
        return self._clients[str(spec.python)]

    def _in_thread(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _open_all(self, openings: Sequence[tuple[XSpec, _Opening]], make: MakeGateway) -> None:
        for spec, opening in openings:
            self._open(spec, opening, make, None, 1)

    def _open(
        self,
        spec: XSpec,
        opening: _Opening,
        make: MakeGateway,
        left: Leftover | None,
        attempts: int,
    ) -> None:
        client = self._client(spec)
        name = client.machine.name
        try:
            with self._turns[name]:
                self._attempt(spec, opening, make, left, attempts)
        except Exception as error:  # noqa: BLE001 (in a thread, where nobody would hear of it)
            opening.problem = repr(error)
        finally:
            self._beginning.discard(client)
            if opening.gateway is None:
                self._gone[name] = opening.problem
            opening.done.set()

    def _attempt(
        self,
        spec: XSpec,
        opening: _Opening,
        make: MakeGateway,
        left: Leftover | None,
        attempts: int,
    ) -> None:
        client = self._client(spec)
        opening.problem = self._gone.get(client.machine.name, "")
        if opening.problem:
            return
        if left is None:
            self._beginning.add(client)
        for attempt in range(attempts):
            if self._over and left is None:
                opening.problem = "the run is over"
                break
            try:
                if attempt:
                    time.sleep(_PAUSE)
                    self._diagnose(client)
                opening.gateway = open_within(
                    self._limit, client, lambda: self._entered(spec, make, left)
                )
            except NotReachedError as error:
                opening.problem = str(error)
            else:
                opening.problem = ""
                break

    def _diagnose(self, client: Client) -> None:
        """Reach the machine for nothing but to know why it is not reached.

        :raises NotReachedError: saying that.
        """
        group = execnet.Group()
        asking = client._replace(note=f"{client.note}-again", errors=f"{client.note}.err")
        try:
            open_within(self._limit, asking, lambda: group.makegateway(asking.specification))
        finally:
            group.terminate(1.0)
            asking.kill()

    def _entered(self, spec: XSpec, make: MakeGateway, left: Leftover | None) -> Gateway:
        """A gateway whose process is where workers are to be, and the only one there."""
        spec.popen = True  # see xdist_controller.as_remote
        gateway = make(spec)
        try:
            gateway.remote_exec(f"import os; os.chdir({self._directory!r})").waitclose()
            if left is not None:
                channel = gateway.remote_exec(handshake)
                channel.send(("end", left.pid, left.began))
                channel.receive()
                channel.waitclose()
        except BaseException:
            gateway.exit()  # execnet knows it by its id, which the next one gets
            raise
        return gateway

    def _cancel(self, spec: XSpec, left: Leftover | None) -> None:
        command = cancelling(self._client(spec).machine, left.step if left else "")
        if command:
            # It may be gone, and nobody can help it if not.
            with suppress(FailedError, OSError):
                output_of(command, os.environ, _CANCEL)

"""Exceptions that only say that another process failed: what happened is in what it printed."""

from __future__ import annotations

import re

from ...own import own_builtins
from .errors import Failure

own_builtins(globals())

_CLASSES = {
    "concurrent.futures.process.BrokenProcessPool",
    "joblib.externals.loky.process_executor.TerminatedWorkerError",
    "ray.exceptions.ActorDiedError",
    "ray.exceptions.ActorUnavailableError",
    "ray.exceptions.RayActorError",
    "ray.exceptions.WorkerCrashedError",
    "subprocess.CalledProcessError",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError",
    "torch.multiprocessing.spawn.ProcessExitedException",
    "vllm.v1.engine.exceptions.EngineDeadError",
}

_PROCESS = r"(server|engine|scheduler|executor|worker|process|subprocess|rank|child)"
_GONE = r"(died|is dead|crashed|exited|terminated|failed to start|returned error)"

_MESSAGE = re.compile(
    "|".join(
        (
            # vLLM, v1/engine/utils.py, v1/engine/exceptions.py, v1/executor/multiproc_executor.py,
            # engine/multiprocessing: "See root cause above", "See stack trace (above) for the root
            # cause", "please check the stack trace above for the root cause".
            r"\broot cause above|\bstack trace( \(?above\)?)? for (the )?root cause",
            # SGLang, entrypoints/engine.py and http_server.py; XLA's "Look at the errors above".
            r"(See|see|Look at) the errors?( messages)? above|\bcheck if there are relevant logs",
            # vLLM's and SGLang's tests, TensorRT-LLM's executor, accelerate, MPI's launchers.
            rf"\b{_PROCESS}\b[^\n]{{0,80}}\b{_GONE}\b",
            r"\b(failed|exited|returned) with (return ?code|exit (code|status)|signal|status)\b",
            r"\bnon-?zero exit (status|code)\b",
        )
    ),
    re.IGNORECASE,
)


def points(failure: Failure) -> bool:
    """Whether the exception says no more than that another process failed."""
    if "builtins.AssertionError" in failure.types:
        return False
    return not _CLASSES.isdisjoint(failure.types) or bool(_MESSAGE.search(failure.text))

"""Journals of runs that nobody made: as large as one likes, of a machine with many GPUs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, Generator, Iterator

from pytest_fkit.journal.events import FORMAT, SCHEMA, encode

Event = Dict[str, Any]

MODELS = (
    "attention",
    "conv2d",
    "embedding",
    "layer_norm",
    "matmul",
    "rotary",
    "sampling",
    "softmax",
)
WHAT = ("backward", "compiles", "export", "forward", "grad_scaling", "matches_reference", "saves")
TYPES = ("bf16", "fp16", "fp32", "fp8_e4m3")
BEGAN = 1_767_225_600.0  # 2026, in the first minute

NOT_CLOSE = "AssertionError: Tensor-likes are not close! Mismatched: {number} ({share:.1f}%)"
ILLEGAL = "RuntimeError: CUDA error: an illegal memory access was encountered"
FULL = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {number} MiB."
REASONS = (NOT_CLOSE, NOT_CLOSE, NOT_CLOSE, ILLEGAL, FULL)


def write(path: Path, tests: int, workers: int = 8, red: float = 0.01) -> Path:
    """The journal of a run that ended."""
    events = sorted(Run(tests, workers, red).events(), key=lambda each: float(each["wall"]))
    path.write_bytes(b"".join(map(encode, events)))
    return path


class Run:
    """A run of a library for GPUs, the same each time; two GPUs for each worker.

    :param red: share of the tests that fail.
    """

    def __init__(self, tests: int, workers: int, red: float) -> None:
        self._random = random.Random(18)
        self._red = red
        self._names = [self._name(number) for number in range(tests)]
        self._gpus = {f"gw{each}": [str(2 * each), str(2 * each + 1)] for each in range(workers)}
        self._clocks = {worker: BEGAN + 12 + each for each, worker in enumerate(self._gpus)}
        self._used = dict.fromkeys((gpu for ids in self._gpus.values() for gpu in ids), 2e9)
        self._errors = 0
        self._retried: set[str] = set()
        self._sick = list(self._gpus)[min(5, workers - 1)]

    def _name(self, number: int) -> str:
        model, what = self._random.choice(MODELS), self._random.choice(WHAT)
        dtype = self._random.choice(TYPES)
        where = f"tests/ops/test_{model}.py::Test{model.title().replace('_', '')}"
        return f"{where}::test_{what}[{dtype}-{number}]"

    def events(self) -> Iterator[Event]:
        """All of them, in their order."""
        yield self._run()
        for worker, gpus in self._gpus.items():
            yield self._event("worker_up", BEGAN + 3, worker=worker, pid=1, gpus=gpus)
        for number, worker in enumerate(self._gpus):
            named = {} if number else {"nodeids": self._names}
            at = self._clocks[worker]
            yield self._event("collection", at, worker=worker, tests=len(self._names), **named)
        third = len(self._names) // 3
        for number, name in enumerate(self._names):
            worker = min(self._clocks, key=lambda each: self._clocks[each])
            if worker == self._sick and third < number and self._errors < 3:
                worker = yield from self._gpu_error(worker, name)
            yield from self._test(worker, number, name, 2 if name in self._retried else 1)
        yield self._event("end", max(self._clocks.values()) + 1, exitstatus=1)

    def _event(self, event: str, at: float, /, **fields: Any) -> dict[str, Any]:
        return {"event": event, "wall": round(at, 6), "mono": round(at - BEGAN, 6), **fields}

    def _run(self) -> dict[str, Any]:
        devices = [{"id": gpu, "vendor": "nvidia", "name": "NVIDIA H200"} for gpu in self._used]
        return self._event(
            "run", BEGAN, format=FORMAT, schema=SCHEMA, id="made", session="made",
            arguments=["--fkit", "-n", "auto", "tests", "--fkit-html=report.html"],
            directory="/home/ci/kernels", rootdir="/home/ci/kernels", devices=devices,
            slices=self._gpus,
            versions={"pytest-fkit": "1.0.0", "pytest": "9.2.0", "python": "3.12.4"},
            machine={"host": "runner-07", "system": "Linux 6.8.0 x86_64", "cpus": 96,
                     "memory": 1 << 40},
        )  # fmt: skip

    def _test(self, worker: str, number: int, name: str, attempt: int) -> Iterator[Event]:
        chance = self._random
        begin, wide = self._clocks[worker], {}
        if number % 97 == 0:
            wide = {"wide": [{"what": "setup", "label": "module-scoped fixture 'weights'",
                              "start": begin, "duration": 1.2}]}  # fmt: skip
            begin += 1.2
        outcome = "passed"
        if chance.random() < self._red:
            outcome = chance.choice(("failed", "failed", "failed", "error"))
        elif chance.random() < 0.08:
            outcome = "skipped"
        seconds = 0.004 if outcome == "skipped" else chance.lognormvariate(-1.4, 1.1) + 0.01
        end = begin + seconds
        yield self._event(
            "gpus", begin + seconds / 2, used=self._memory(worker, chance.uniform(8e9, 9e10))
        )
        yield self._attempt(worker, name, begin, seconds, outcome, attempt, **wide)
        yield self._verdict(worker, number, name, begin, seconds, outcome, attempt)
        yield self._event("gpus", end, used=self._memory(worker, 2e9))
        self._clocks[worker] = end + 0.005

    def _memory(self, worker: str, size: float) -> dict[str, dict[str, float]]:
        self._used.update((gpu, int(size)) for gpu in self._gpus[worker])
        return {gpu: {"memory": size} for gpu, size in self._used.items()}

    def _attempt(
        self, worker: str, name: str, begin: float, seconds: float, outcome: str, number: int,
        **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        died = outcome == "error"
        shares = {"setup": 0.12, "call": 0.8, "teardown": 0.08}
        phases, at = [], begin
        for when, share in shares.items():
            said = (
                "passed" if when != "call" or outcome == "retried" else "died" if died else outcome
            )
            phases.append({"when": when, "start": at, "duration": seconds * share, "outcome": said})
            at += seconds * share
            if died and when == "call":
                break
        ending = (
            {"type": "Signaled", "title": "SIGSEGV", "signal": 11} if died else {"type": "Finished"}
        )
        return self._event(
            "attempt", begin + seconds, test=name, worker=worker, attempt=number, pid=4000,
            start=round(begin, 6), duration=round(seconds, 6), phases=phases, ending=ending,
            user=seconds * self._random.uniform(0.5, 2.5), system=seconds * 0.1,
            peak_memory=int(self._random.uniform(8e8, 3e9)), minor_faults=5000, major_faults=0,
            read=100_000, written=2000, gpus=self._gpus[worker],
            gpu_peak_memory=int(self._random.uniform(8e9, 9e10)), **more,
        )  # fmt: skip

    def _verdict(
        self, worker: str, number: int, name: str, begin: float, seconds: float, outcome: str,
        attempt: int,
    ) -> dict[str, Any]:  # fmt: skip
        reports: list[dict[str, Any]] = [
            {"when": when, "outcome": "passed", "duration": round(seconds / 3, 6), "start": begin}
            for when in ("setup", "call", "teardown")
        ]
        said = {}
        if outcome == "skipped":
            reports[1].update(
                outcome="skipped", skip=[name.partition("::")[0], 12, "Skipped: needs fp8"]
            )
            said = {"message": "Skipped: needs fp8"}
        elif outcome != "passed":
            message = "SIGSEGV at kernels/launch.py:88 in launch"
            if outcome == "failed":
                reason = self._random.choice(REASONS)
                message = reason.format(
                    number=self._random.randrange(1, 65536), share=self._random.random() * 9
                )
            else:
                reports[1]["fkit_death"] = message
            reports[1].update(outcome="failed", message=message, text=self._text(name, message))
            said = {"message": message}
        if number % 3 == 0:
            lines = (f"step {step}: loss {self._random.random():.6f}" for step in range(8))
            reports[1]["sections"] = [["Captured stdout call", "\n".join(lines)]]
        return self._event(
            "verdict", begin + seconds, test=name, worker=worker, attempt=attempt, outcome=outcome,
            location=[name.partition("::")[0], self._random.randrange(400), name], reports=reports,
            **said,
        )  # fmt: skip

    def _text(self, name: str, message: str) -> str:
        seed = self._random.randrange(9999)
        return (
            f"    def test_it(self, dtype, seed={seed}):\n"
            "        expected = reference(inputs)\n"
            ">       assert_close(kernel(inputs), expected)\n"
            f"E       {message}\n\n{name.partition('::')[0]}:77: in test_it\n"
            "    return launch(grid, inputs)\nkernels/launch.py:88: in launch\n    raise"
        )

    # --- a GPU that falls ill ---

    def _gpu_error(self, worker: str, name: str) -> Generator[Event, None, str]:
        """Its events.

        :return: the worker on which the test runs again.
        """
        begin, seconds = self._clocks[worker], 3.0
        end = begin + seconds
        gpus = self._gpus[worker]
        about = {"worker": worker, "gpus": gpus}
        self._errors += 1
        self._retried.add(name)
        yield self._attempt(
            worker,
            name,
            begin,
            seconds,
            "retried",
            1,
            again=True,
            category="uncorrectable ECC error",
        )
        yield self._event(
            "xid", end, xid=48, gpus=gpus[:1], name="Double Bit ECC Error", source="NVML"
        )
        yield self._event(
            "gpu_error",
            end,
            test=name,
            category="uncorrectable ECC error",
            message="Xid 48",
            **about,
        )
        others = [each for each in self._clocks if each != worker]
        to = min(others, key=lambda each: self._clocks[each])
        yield self._event("retried", end, test=name, attempt=1, category="uncorrectable ECC error",
                          to=to, to_gpus=self._gpus[to], **about)  # fmt: skip
        self._clocks[worker] = end + 0.1
        self._clocks[to] = max(self._clocks[to], end)
        if self._errors == 3:
            yield self._event(
                "retired",
                end,
                reason="3 GPU errors in a row, the last: uncorrectable ECC error",
                **about,
            )
            del self._clocks[worker]
        return to

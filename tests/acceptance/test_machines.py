"""Workers on other machines that have GPUs; test_lost_machines.py loses them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, ContextManager, Mapping

import pytest
from far_machines import ENGINES, Machines
from inner_runs import run, wait_until

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

SUITE = {
    "conftest.py": """\
        import os, pathlib, pytest

        HERE = pathlib.Path(os.environ["FKIT_INNER_DIR"])
        NODE = os.environ.get("FKIT_MACHINE"), os.environ.get("SLURMD_NODENAME")

        @pytest.fixture(autouse=True)
        def seen(request):
            seen = NODE, os.environ["CUDA_VISIBLE_DEVICES"], os.getcwd()
            worker = os.environ["PYTEST_XDIST_WORKER"]
            (HERE / f"seen-{worker}-{request.node.name}").write_text(repr(seen))
    """,
    "test_many.py": """\
        import os, pathlib, time, pytest

        HERE = pathlib.Path(os.environ["FKIT_INNER_DIR"])

        @pytest.mark.parametrize("number", range(16))
        def test_it(number, tmp_path):
            (HERE / f"tmp-{os.getpid()}").write_text(str(tmp_path))
            # Every worker is to have its turn.
            deadline = time.monotonic() + 60
            while len({each.name.split("-")[1] for each in HERE.glob("seen-*")}) < 4:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            broken = os.environ["FKIT_MACHINE"], os.environ["CUDA_VISIBLE_DEVICES"]
            if broken == ("n2", "1"):
                raise RuntimeError("CUDA error: unspecified launch failure")

        @pytest.mark.fkit(gpus=2)
        def test_gang():
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"

        def test_crash():
            os.abort()

        def test_memory():
            first = HERE / "lacks"
            if not first.exists():
                first.write_text(os.environ["FKIT_MACHINE"])
            if first.read_text() == os.environ["FKIT_MACHINE"]:
                with open("/dev/full", "w") as shm:  # as /dev/shm may be
                    shm.write("x")
    """,
}


@pytest.mark.parametrize("engine", ENGINES)
def test_machines_with_gpus(
    engine: Callable[..., ContextManager[Machines]],
    fleet: Fleet,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Slices, gangs, retries and retiring are the machines', and so are the words for it."""
    gpus = fleet(fleets.nvidia(2))
    with engine(tmp_path_factory.mktemp("machines"), gpus) as given:
        ended = run(
            tmp_path, SUITE, "--fkit", f"--fkit-machines={given.option}",
            "--fkit-gpus-per-worker=1", "--fkit-retire-after=1", "--fkit-journal=j.jsonl",
            "--fkit-trace=t.json",
            env=given.environ,
        )  # fmt: skip
        assert wait_until(lambda: given.steps() == [], 20)
    printed = ended.stdout + ended.stderr
    assert len(ended.verdicts) == 19, printed
    failed = [name for name, each in ended.verdicts.items() if each.failures]
    assert failed == ["test_many.py::test_crash"], printed
    assert "worker gw" in ended.verdicts[failed[0]].death["text"]
    assert " on n" in ended.verdicts[failed[0]].death["text"]
    assert "fkit: n1 gw0,gw1 | n2 gw2,gw3" in printed
    for name, owners in (("n1", "gw0 0 | gw1 1"), ("n2", "gw2 0 | gw3 1")):
        assert f"fkit: {name}: 2 workers, 2 NVIDIA GPUs (" in printed
        assert owners in printed
    assert "fkit: gw3 on n2 (GPU 1) is retired: " in printed
    again = [line for line in printed.splitlines() if "retrying" in line and "launch" in line]
    assert again
    assert all("; attempt 1 on gw3 on n2 (GPU 1): " in line for line in again), again
    lacks = (tmp_path / "lacks").read_text()
    retried = printed.partition("retrying test_many.py::test_memory on ")[2].partition("\n")[0]
    assert re.search(rf"; attempt 1 on gw. on {lacks} \(GPU .\): \[Errno 28\] No space", retried)
    assert '"error of the machine"' in (tmp_path / "t.json").read_text()
    machines = {"gw0": "n1", "gw1": "n1", "gw2": "n2", "gw3": "n2"}
    seen = {path.name.split("-")[1]: path.read_text() for path in tmp_path.glob("seen-*")}
    assert {*seen} == {*machines}
    for worker, said in seen.items():
        node = machines[worker] if given.slurm else None
        assert said.startswith(f"(({machines[worker]!r}, {node!r}), ")
        assert str(tmp_path) in said
    directories = [path.read_text() for path in tmp_path.glob("tmp-*")]
    assert directories
    # Not below that of the controller's machine.
    assert not any("popen-gw" in each.replace(str(tmp_path), "") for each in directories)
    events = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    up = {each["worker"]: each["host"] for each in events if each["event"] == "worker_up"}
    assert up == machines

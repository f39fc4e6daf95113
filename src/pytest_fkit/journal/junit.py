"""A journal as JUnit XML, as pytest's ``--junitxml`` has it: of a run that was killed, too."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any, Dict, Iterator, Sequence

from .attempts import KeptReport
from .events import Event
from .history import History, Session, TestHistory
from .rates import repeated_again, words

Case = Dict[str, Any]
"""One test: the attributes of its element, its "properties", and its "result" if it has one."""

Suite = Dict[str, Any]
"""One session: the attributes of its element, and its "cases"."""


_LONGEST = 500
"""Characters of a message; the text has all."""


def suites(history: History) -> list[Suite]:
    """The sessions with their tests; each test has one element, by its verdict."""
    cases: list[list[Case]] = [[] for _ in history.sessions]
    for test in history.current():
        cases[test.session].append(_case(test))
    for number, session in enumerate(history.sessions):
        if session.end is None:
            cases[number] += _unfinished(history, number, session)
    return [_suite(*each) for each in zip(history.sessions, cases)]


def _suite(session: Session, cases: list[Case]) -> Suite:
    tags = [each["result"]["tag"] for each in cases if "result" in each]
    return {
        "name": "pytest",
        "errors": tags.count("error"),
        "failures": tags.count("failure"),
        "skipped": tags.count("skipped"),
        "tests": len(cases),
        "time": round(session.seconds, 3),
        "timestamp": session.began.isoformat(),
        "hostname": str(session.runs[0].get("machine", {}).get("host", "")),
        "cases": cases,
    }


def _case(test: TestHistory) -> Case:
    reports = test.verdict.get("reports", ())
    path, line, _ = test.verdict.get("location") or (None, None, None)
    made = _named(test.nodeid)
    made["file"] = path if path is not None else test.nodeid.partition("::")[0]
    if line is not None:
        made["line"] = line
    made["time"] = round(sum(each["duration"] for each in reports), 3)
    made["properties"] = _properties(test, reports)
    result = _result(test, reports)
    if result is not None:
        made["result"] = result
    if test.went_wrong:
        made.update(_output(reports))
    return made


def _named(nodeid: str) -> Case:
    """Class name and name, as pytest makes them of a node id."""
    address, bracket, parameters = nodeid.partition("[")
    path, *names = address.split("::")
    parts = [re.sub(r"\.py$", "", path.replace("/", ".")), *names]
    parts[-1] += bracket + parameters
    return {"classname": ".".join(parts[:-1]), "name": parts[-1]}


def _properties(test: TestHistory, reports: Sequence[KeptReport]) -> list[list[str]]:
    last = reports[-1].get("properties", ()) if reports else ()
    ending = test.attempt.get("ending", {}).get("title", "finished")
    ours = {
        "fkit_worker": str(test.verdict.get("worker", "")),
        "fkit_attempts": str(test.verdict.get("attempt", 1)),
        "fkit_ending": str(ending),
    }
    if test.repeated is not None:
        ours["fkit_repeated"] = words(repeated_again(test.repeated))
    gpus = test.attempt.get("gpus", ())
    if gpus:
        ours["fkit_gpus"] = ",".join(gpus)
    own = [[str(name), str(value)] for name, value in last if name not in ours]
    return [*own, *([name, value] for name, value in ours.items())]


def _result(test: TestHistory, reports: Sequence[KeptReport]) -> Case | None:
    """The element that says how the test ended, None if it passed."""
    if test.outcome in ("passed", "xpassed"):
        return None
    if test.went_wrong:
        failed = [each for each in reports if each["outcome"] == "failed"]
        text = "\n\n".join(str(each.get("text", "")) for each in failed)
        tag = "failure" if test.outcome == "failed" else "error"
        return {"tag": tag, "message": _message(test, failed), "text": text}
    for report in reports:
        if "xfail" in report:
            reason = re.sub("^reason: ", "", report["xfail"])
            return {"tag": "skipped", "type": "pytest.xfail", "message": reason}
        if "skip" in report:
            path, line, reason = report["skip"]
            reason = re.sub("^Skipped: ", "", reason)
            text = f"{path}:{line}: {reason}"
            return {"tag": "skipped", "type": "pytest.skip", "message": reason, "text": text}
    return {"tag": "skipped", "message": str(test.verdict.get("message", test.outcome))}


def _message(test: TestHistory, failed: Sequence[KeptReport]) -> str:
    if not failed:
        return "the test's call was not reported"
    first = failed[0]
    death = first.get("fkit_death")
    if death:
        return f"died in {first['when']}: {death}"
    reason = str(first.get("message") or first.get("text", ""))
    if len(reason) > _LONGEST:
        reason = f"{reason[:_LONGEST]}..."
    return reason if test.outcome == "failed" else f'failed on {first["when"]} with "{reason}"'


def _output(reports: Sequence[KeptReport]) -> Case:
    """What the test wrote; each report has what was captured up to its end."""
    sections = {name: text for each in reports for name, text in each.get("sections", ())}
    found = {}
    for key, kind in (("system-out", "stdout"), ("system-err", "stderr")):
        texts = [text for name, text in sections.items() if name.startswith(f"Captured {kind}")]
        if texts:
            found[key] = "\n".join(texts)
    return found


def _unfinished(history: History, number: int, session: Session) -> Iterator[Case]:
    """The tests without a verdict of a run that was cut off."""
    running = dict(session.running.keys())
    missing = [nodeid for where, nodeid in history.not_run() if where == number]
    for nodeid in dict.fromkeys([*running, *missing]):
        made = {**_named(nodeid), "file": nodeid.partition("::")[0], "time": 0.0, "properties": []}
        if nodeid in running:
            text = f"no verdict: the run was cut off while {running[nodeid]} ran the test"
            yield {**made, "result": {"tag": "error", "message": text, "text": text}}
        else:
            text = "not run: the run was cut off"
            yield {**made, "result": {"tag": "skipped", "message": text}}
    if not running:  # a run that was cut off is not green
        text = "the run was cut off between two tests"
        made = {"classname": "pytest-fkit", "name": "the run", "time": 0.0, "properties": []}
        yield {**made, "result": {"tag": "error", "message": text, "text": text}}


# --- XML ---

_ILLEGAL = re.compile(
    "[^\u0009\u000a\u000d\u0020-\u007e\u0080-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


def document(made: Sequence[Suite]) -> bytes:
    root = ElementTree.Element("testsuites", name="pytest tests")
    for suite in made:
        attributes = {name: _text(it) for name, it in suite.items() if name != "cases"}
        element = ElementTree.SubElement(root, "testsuite", attributes)
        for case in suite["cases"]:
            _add_case(element, case)
    found: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _add_case(suite: ElementTree.Element, case: Case) -> None:
    names = ("classname", "name", "file", "line", "time")
    attributes = {name: _text(case[name]) for name in names if name in case}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case["properties"]:
        properties = ElementTree.SubElement(element, "properties")
        for name, value in case["properties"]:
            ElementTree.SubElement(properties, "property", name=_text(name), value=_text(value))
    result: Event = case.get("result", {})
    if result:
        known = {name: _text(it) for name, it in result.items() if name in ("type", "message")}
        ElementTree.SubElement(element, result["tag"], known).text = _text(result.get("text", ""))
    for tag in ("system-out", "system-err"):
        if tag in case:
            ElementTree.SubElement(element, tag).text = _text(case[tag])


def _text(value: object) -> str:
    """Without characters that XML can't hold, which pytest writes in the same way."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return _ILLEGAL.sub(_escaped, str(value))


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"#x{number:02X}" if number <= 0xFF else f"#x{number:04X}"

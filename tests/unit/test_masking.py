"""Secrets are masked, and nothing else is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pytest_fkit.config.values import parse_mask
from pytest_fkit.journal.events import TEXT_LIMIT, capped
from pytest_fkit.journal.masking import Masking, of_environment

PLAIN = Masking(())


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # What names say.
        ("HF_TOKEN=whatever", "HF_TOKEN=***"),
        ("password='hunter2'", "password='***'"),
        ('{"api_key": "sk", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("client_secret: b'x y z'", "client_secret: b'***'"),
        ("apiKey => abc def", "apiKey => *** def"),
        ("DB_PASSWORD=ab(cd", "DB_PASSWORD=***"),
        ("AWS_SECRET_ACCESS_KEY=wJal/K7+x=", "AWS_SECRET_ACCESS_KEY=***"),
        ("pytest --api-key=xyz -k a", "pytest --api-key=*** -k a"),
        ("token=8f14e45fceea167a5a36", "token=***"),
        # What they look like.
        ("remote: ghp_0123456789abcdefghij0123", "remote: ***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("(eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig)", "(***)"),
        ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\nx",
         "-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----\nx"),
        # Where they are.
        ("git clone https://me:pw@host/a", "git clone https://me:***@host/a"),
        ("postgres://u:p%40ss@db:5432/x", "postgres://u:***@db:5432/x"),
        ("https://x-oauth0123456789abc@host/", "https://***@host/"),
        ("GET /?access_token=abc&n=1", "GET /?access_token=***&n=1"),
        ("s3?X-Amz-Signature=00ff00ff00ff00ff&n=1", "s3?X-Amz-Signature=***&n=1"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("'authorization': 'Basic dXNlcjpwYXNz'", "'authorization': 'Basic ***'"),
    ],
)  # fmt: skip
def test_a_secret_is_masked(text: str, masked: str) -> None:
    assert PLAIN.text(text) == masked
    assert PLAIN.text(f"İ {text}") == f"İ {masked}"  # longer in lower case


@pytest.mark.parametrize(
    "text",
    [
        "assert tokens == [1, 2]", "pad_token='<pad>'", "tokens_per_s: 12.5", "next_token = 5",
        "eos_token_id: 2", "tokenizer = AutoTokenizer()", "password: str", "password=None",
        "def f(key=5, password=None):", "password = get_password()", "secret = os.environ['X']",
        "cache_key=abc", "sort(key=len)", "sys.monkey = 1", "ssh://git@github.com/a",
        "http://host:80/a@b", "PWD=/home/me", "task-management-is-a-long-word-too",
        "auth = True", "signature: inspect.Signature", "TOKEN", "password=", "x@y.org",
    ],
)  # fmt: skip
def test_what_is_none_stays(text: str) -> None:
    assert PLAIN.text(text) == text


def test_values_of_variables_are_masked_wherever_they_are() -> None:
    found = of_environment(
        {"CI_JOB_TOKEN": "glimmering", "HOME": "/root", "X_PASSWORD": "abc", "KEY_FILE": "k.pem",
         "DEPLOY_KEY": "/etc/keys", "API_KEY": "true", "ACME_ID": "acme-12345"},
        [parse_mask("acme_*"), parse_mask("/acct-[0-9]+/")],
    )  # fmt: skip
    text = "glimmering /root abc k.pem /etc/keys true acme-12345 acct-99 ACME_X=1, acme_y: 'z'"
    expected = "*** /root abc k.pem /etc/keys true *** *** ACME_X=***, acme_y: '***'"
    assert found.text(text) == expected


def test_an_option_and_its_value_may_be_two_arguments() -> None:
    arguments = ["--token", "-x", "--api-token", "abc", "-k", "a", "--password", "x", "y"]
    assert PLAIN.arguments(arguments) == [
        "--token", "-x", "--api-token", "***", "-k", "a", "--password", "***", "y",
    ]  # fmt: skip


def test_half_a_secret_at_a_cut_goes_too() -> None:
    half = TEXT_LIMIT // 2
    text = "a " * ((half - 10) // 2) + "ghp_" + "x" * 40 + " b" * half
    masked = PLAIN.text(capped(text))
    assert "ghp_" not in masked
    assert "xxx" not in masked
    assert "characters cut" in masked


def test_events_are_masked_but_for_what_joins_them() -> None:
    secret = "password=hunter2"
    report = {"when": "call", "outcome": "failed", "duration": 0.1, "text": secret}
    more = {"sections": [["log", secret]], "properties": [["p", secret]], "message": secret,
            "added": {"x": ["dict", {"token": "abc", "db_password": "x"}]}}  # fmt: skip
    told: list[dict[str, Any]] = [
        {"event": "run", "arguments": ["--db-password", "hunter2"], "options": {"env": secret}},
        {"event": "verdict", "test": secret, "message": secret, "reports": [{**report, **more}]},
        {"event": "report", "test": secret, **report},
        {"event": "attempt", "test": secret, "leftovers": [secret], "metrics": {"a": secret}},
        {"event": "running", "test": secret, "stacks": secret, "line": secret},
        {"event": "worker_down", "worker": "gw0", "error": secret},
        {"event": "of a later version", "worker": "gw0", "text": secret},
    ]
    for each in told:
        masked = PLAIN.event(each)
        assert masked.get("test") == each.get("test")
        assert "hunter2" not in json.dumps({**masked, "test": ""})
    masked = PLAIN.event(told[1])["reports"][0]["added"]["x"][1]
    assert masked == {"token": "abc", "db_password": "***"}
    quiet = {"event": "verdict", "test": "a", "reports": [{"when": "call", "outcome": "passed"}]}
    assert PLAIN.event(quiet) is quiet


@pytest.mark.parametrize(
    "text", ["x" * 2, "eyJ", "token", "://", "password ", "key:", "a-", "authorization: ", "auth:"]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    PLAIN.text(text * (TEXT_LIMIT // len(text)))
    assert time.process_time() - began < 1

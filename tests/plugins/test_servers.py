"""Plugins whose wide fixtures hold a server, an event loop or a database."""

from __future__ import annotations

import pytest
from comparing import MakeSuite

HTTP = """
    import json, urllib.error, urllib.request, pytest

    def get(url):
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read()

    def test_pass(httpserver):
        httpserver.expect_request("/a").respond_with_data("hello")
        assert get(httpserver.url_for("/a")) == b"hello"
        httpserver.check_assertions()

    def test_nothing_is_left_of_the_test_before(httpserver):
        with pytest.raises(urllib.error.HTTPError):
            get(httpserver.url_for("/a"))
        assert len(httpserver.log) == 1

    def test_ordered(httpserver):
        httpserver.expect_ordered_request("/1").respond_with_json({"n": 1})
        httpserver.expect_ordered_request("/2").respond_with_json({"n": 2})
        assert json.loads(get(httpserver.url_for("/1"))) == {"n": 1}
        assert json.loads(get(httpserver.url_for("/2"))) == {"n": 2}

    def test_handler(httpserver):
        seen = []
        def handle(request):
            from werkzeug import Response
            seen.append(request.path)
            return Response("handled")
        httpserver.expect_oneshot_request("/h").respond_with_handler(handle)
        assert get(httpserver.url_for("/h")) == b"handled"
        assert seen == ["/h"]

    def test_fail(httpserver):
        httpserver.expect_request("/a").respond_with_data("hello")
        assert get(httpserver.url_for("/a")) == b"goodbye"

    def test_unexpected(httpserver):
        with pytest.raises(urllib.error.HTTPError):
            get(httpserver.url_for("/nowhere"))
        httpserver.check_assertions()
"""


def test_httpserver_serves(suite: MakeSuite) -> None:
    plain = suite("pytest_httpserver", test_it=HTTP).compare()
    assert plain.counts()["call passed"] == 4
    assert plain.counts()["call failed"] == 2


def test_a_crash_takes_its_server_along_and_the_next_test_gets_another(suite: MakeSuite) -> None:
    crash = """
    import os

    def test_crash(httpserver):
        os.abort()
    """
    made = suite("pytest_httpserver", test_a=HTTP, test_b=crash, test_c=HTTP)
    plain = made.run("test_a.py", "test_c.py")
    for mode in (["-n0"], ["-n2"]):
        run = made.run("--fkit", *mode)
        died = run.outcomes.pop("test_b.py::test_crash")
        assert died == ["setup passed", "call failed", "teardown passed"]
        assert run.outcomes == plain.outcomes, run.text
        assert "'make_httpserver'" in run.text  # says what shared a process


ANYIO = """
    import anyio, pytest

    @pytest.fixture(scope="module", params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

    @pytest.fixture(scope="module")
    async def wide():
        async with anyio.create_task_group() as group:
            send, receive = anyio.create_memory_object_stream(10)
            async def double():
                async for number, answer in receive:
                    await answer.send(2 * number)
            group.start_soon(double)
            yield send
            group.cancel_scope.cancel()

    @pytest.fixture
    async def narrow():
        await anyio.sleep(0)
        yield 1
        await anyio.sleep(0)

    @pytest.mark.anyio
    async def test_pass(narrow):
        await anyio.sleep(0.001)
        assert narrow == 1

    @pytest.mark.anyio
    async def test_fail(narrow):
        assert narrow == 2

    @pytest.mark.anyio
    async def test_same_loop(wide):
        ask, answer = anyio.create_memory_object_stream(1)
        await wide.send((21, ask))
        assert await answer.receive() == 42

    @pytest.mark.anyio
    async def test_same_loop_fails(wide):
        with anyio.fail_after(0.01):
            await anyio.sleep(10)

    def test_plain():
        pass
"""


def test_anyio_runs_coroutines_on_each_backend(suite: MakeSuite) -> None:
    plain = suite("anyio", test_it=ANYIO).compare()
    assert plain.counts()["call passed"] == 5
    assert plain.counts()["call failed"] == 4


SETTINGS = """
    SECRET_KEY = "secret"
    INSTALLED_APPS = ["shop"]
    ROOT_URLCONF = "shop.urls"
    STATIC_URL = "/static/"
    ALLOWED_HOSTS = ["*"]
    USE_TZ = True
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    DATABASES = {{
        "default": {{
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "unused.sqlite3",
            "TEST": {{"NAME": "{name}"}},
        }}
    }}
"""

MODELS = """
    from django.db import models

    class Book(models.Model):
        title = models.CharField(max_length=100)
"""

URLS = """
    from django.http import HttpResponse
    from django.urls import path
    from shop.models import Book

    urlpatterns = [path("count/", lambda request: HttpResponse(str(Book.objects.count())))]
"""

DJANGO = """
    import urllib.request
    import django.test, pytest
    from shop.models import Book

    @pytest.mark.django_db
    def test_create():
        Book.objects.create(title="a")
        assert Book.objects.count() == 1

    @pytest.mark.django_db
    def test_rolled_back():
        assert Book.objects.count() == 0

    @pytest.mark.django_db(transaction=True)
    def test_transaction():
        Book.objects.create(title="t")
        assert Book.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_flushed():
        assert Book.objects.count() == 0

    def test_no_database_unasked():
        Book.objects.count()

    def test_client(client, db):
        Book.objects.create(title="c")
        assert client.get("/count/").content == b"1"

    def test_settings(settings):
        settings.DEBUG = True
        from django.conf import settings as others
        assert others.DEBUG

    def test_settings_are_back():
        from django.conf import settings
        assert not settings.DEBUG

    def test_fail(db):
        assert Book.objects.count() == 5

    def test_queries(db, django_assert_num_queries):
        with django_assert_num_queries(1):
            list(Book.objects.all())

    def test_too_many_queries(db, django_assert_num_queries):
        with django_assert_num_queries(1):
            list(Book.objects.all())
            list(Book.objects.all())

    def test_mail(mailoutbox):
        from django.core import mail
        mail.send_mail("subject", "body", "from@example.com", ["to@example.com"])
        assert len(mailoutbox) == 1

    class TestDjango(django.test.TestCase):
        @classmethod
        def setUpTestData(cls):
            cls.book = Book.objects.create(title="class")

        def test_one(self):
            Book.objects.create(title="more")
            self.assertEqual(Book.objects.count(), 2)

        def test_two(self):
            self.assertEqual(Book.objects.get().title, "class")

        def test_fail(self):
            self.assertEqual(Book.objects.count(), 7)

    def test_live_server(live_server):
        Book.objects.create(title="live")
        with urllib.request.urlopen(live_server.url + "/count/", timeout=10) as response:
            assert response.read() == b"1"

    def test_live_server_again(live_server):
        with urllib.request.urlopen(live_server.url + "/count/", timeout=10) as response:
            assert response.read() == b"0"
"""


@pytest.mark.parametrize("name", [":memory:", "test_db.sqlite3"], ids=["memory", "file"])
def test_django_has_its_database(
    suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
    files = {
        "project_settings": SETTINGS.format(name=name),
        "shop/__init__": "",
        "shop/models": MODELS,
        "shop/urls": URLS,
        "test_it": DJANGO,
    }
    plain = suite("django", **files).compare()
    assert plain.counts()["call failed"] == 4, plain.text
    assert plain.counts()["call passed"] == 13, plain.text


def test_django_crash_in_a_transaction(suite: MakeSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
    source = """
        import os, pytest
        from shop.models import Book

        @pytest.mark.django_db(transaction=True)
        def test_a_crash():
            Book.objects.create(title="lost")
            os.abort()

        @pytest.mark.django_db
        def test_b_nothing_is_left():
            assert Book.objects.count() == 0
    """
    files = {
        "project_settings": SETTINGS.format(name=":memory:"),
        "shop/__init__": "",
        "shop/models": MODELS,
        "shop/urls": URLS,
        "test_it": source,
    }
    run = suite("django", **files).run("--fkit", "-n0")
    assert run.outcomes["test_it.py::test_a_crash"][1] == "call failed", run.text
    assert run.outcomes["test_it.py::test_b_nothing_is_left"][1] == "call passed", run.text

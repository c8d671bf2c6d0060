from __future__ import annotations

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import AddHeader, Match, RemoveHeader, Rule, SetHeader
from moat.net.paths import decoded_path
from moat.proxy.inject import by_authority, inject

API = Authority("https", "api.example.com", 443)


def a_head(
    target: str = "/user", *headers: tuple[str, str], method: str = "GET", authority: Authority = API
) -> RequestHead:
    return RequestHead(method, authority, target, Headers(headers))


def a_rule(
    value: str = "s3cr3t",
    grant: str = "g",
    name: str = "Authorization",
    methods: tuple[str, ...] = (),
    paths: tuple[str, ...] = (),
    when_header: str = "",
) -> SetHeader:
    return SetHeader(Match("api.example.com", methods, paths, when_header), name, value, grant)


def sent(rules: list[Rule], head: RequestHead) -> tuple[tuple[str, str], ...]:
    return inject(rules, head).head.headers.items


def test_the_clients_own_value_never_leaves() -> None:
    head = a_head("/", ("authorization", "mine"), ("Accept", "*/*"), ("Authorization", "too"))

    done = inject([a_rule()], head)

    assert done.head.headers.items == (("Authorization", "s3cr3t"), ("Accept", "*/*"))
    assert done.grants == ("g",)
    assert done.names == ("Authorization",)


def test_nothing_is_injected_on_plain_http() -> None:
    head = a_head(authority=Authority("http", "api.example.com", 80))

    assert inject([a_rule()], head).head == head


def test_rules_are_grouped_by_exact_authority() -> None:
    default, other = a_rule(), SetHeader(Match("API.example.com.:8443"), "A", "b")

    assert by_authority([default, other]) == {API: (default,), Authority("https", "api.example.com", 8443): (other,)}


def test_methods_and_paths_narrow_a_rule() -> None:
    rule = a_rule(methods=("GET",), paths=("/*/*/info/refs",))

    assert sent([rule], a_head("/o/r/info/refs?service=git"))
    assert not sent([rule], a_head("/o/r/info/refs", method="POST"))
    assert not sent([rule], a_head("/o/info/refs"))


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/a/b"])
def test_two_stars_match_any_number_of_segments_and_none(path: str) -> None:
    assert sent([a_rule(paths=("/admin/**",))], a_head(path))


@pytest.mark.parametrize("path", ["/administrator", "/x/admin"])
def test_two_stars_keep_to_segments(path: str) -> None:
    assert not sent([a_rule(paths=("/admin/**",))], a_head(path))


@pytest.mark.parametrize(
    "path",
    ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/%2e%2e/a", "/a/../b", "/a/./b", "/a//b", "/a%252fb", "/..;/a", "/a%00",
     "/a%ff", "/a%0a", "/%2E/a"],
)  # fmt: skip
def test_a_path_that_reads_two_ways_matches_no_path_rule(path: str) -> None:
    assert decoded_path(path) is None
    assert not sent([a_rule(paths=("/**",))], a_head(path))
    assert sent([a_rule()], a_head(path))


def test_ordinary_encodings_are_decoded_before_matching() -> None:
    assert decoded_path("/caf%C3%A9/a%20b") == "/café/a b"


def test_when_header_lets_the_client_choose_its_credential() -> None:
    plain, chosen = a_rule("s3cr3t-1", "one"), a_rule("s3cr3t-2", "two", when_header="X-Api-Key")

    without = inject([plain, chosen], a_head())
    with_key = inject([plain, chosen], a_head("/", ("x-api-key", "placeholder")))

    assert (without.head.headers.get("authorization"), without.grants) == ("s3cr3t-1", ("one",))
    assert (with_key.head.headers.get("authorization"), with_key.grants) == ("s3cr3t-2", ("two",))


def test_exactly_one_of_two_credentials_in_one_header_leaves_and_is_named() -> None:
    done = inject([a_rule("s3cr3t-1", "one"), a_rule("s3cr3t-2", "two")], a_head())

    assert done.head.headers.get_all("Authorization") == ("s3cr3t-1",)
    assert done.grants == ("one",)


def test_adding_keeps_what_the_client_sent_and_removing_spares_what_was_set() -> None:
    match = Match("api.example.com")
    rules: list[Rule] = [a_rule(), AddHeader(match, "X-Beta", "b", "g"), RemoveHeader(match, "authorization")]

    done = inject(rules, a_head("/", ("X-Beta", "a"), ("Authorization", "mine")))

    assert done.head.headers.items == (("X-Beta", "a"), ("Authorization", "s3cr3t"), ("X-Beta", "b"))
    assert done.grants == ("g",)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection"])
def test_rules_cannot_touch_framing_or_routing(name: str) -> None:
    assert inject([a_rule(name=name)], a_head()).head == a_head()


def test_no_secret_shows_in_the_repr() -> None:
    assert "s3cr3t" not in repr(inject([a_rule()], a_head()))


def test_what_was_secret_of_that_which_left_is_told_and_the_rest_is_not() -> None:
    rules: list[Rule] = [
        a_rule("s3cr3t-one"),
        a_rule("s3cr3t-never-sent"),
        AddHeader(Match("api.example.com"), "X-Version", "2023-06-01", is_secret=False),
    ]

    assert inject(rules, a_head()).secrets == ("s3cr3t-one",)


def test_a_client_chooses_between_two_credentials_by_the_header_that_it_sends_and_never_gets_both() -> None:
    key = SetHeader(Match("api.example.com", unless_header="Authorization"), "x-api-key", "key", "keys")
    login = a_rule("Bearer token", "logins", when_header="Authorization")
    rules: list[Rule] = [key, login, RemoveHeader(login.match, "x-api-key", "logins")]

    assert sent(rules, a_head("/", ("authorization", "mine"))) == (("Authorization", "Bearer token"),)
    assert sent(rules, a_head("/", ("X-Api-Key", "mine"))) == (("x-api-key", "key"),)
    assert sent(rules, a_head()) == (("x-api-key", "key"),)
    assert sent(rules, a_head("/", ("authorization", "a"), ("x-api-key", "b"))) == (("Authorization", "Bearer token"),)


@pytest.mark.parametrize(
    ("before", "after"),
    [((), ("new",)), (("old",), ("old", "new")), (("old, new",), ("old, new",)), (("newer",), ("newer", "new"))],
    ids=["none", "another", "it among others", "one that begins like it"],
)
def test_a_value_is_added_once(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    rule = AddHeader(Match("api.example.com"), "X-Beta", "new", "g", is_secret=False)

    done = inject([rule], a_head("/", *(("x-beta", value) for value in before)))

    assert done.head.headers.get_all("X-Beta") == after

"""daemon.json: one key in and out again, and every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.docker.daemon_json import KEY, installed, uninstalled, value_of
from v6fwd.model import InputError

SHIM = "/opt/v6fwd/bin/v6fwd-docker-proxy"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n    "KEY": "SHIM"\n}\n'),
        (" \n", '{\n    "KEY": "SHIM"\n}\n'),
        ("{}", '{"KEY": "SHIM"}'),
        ("{}\n", '{"KEY": "SHIM"}\n'),
        ("{\n}\n", '{\n    "KEY": "SHIM"\n}\n'),
        ("{\r\n}", '{\r\n    "KEY": "SHIM"\r\n}'),
        ('{"a":1}', '{"a":1, "KEY":"SHIM"}'),
        ('{"a": 1, "b": [1,2]}', '{"a": 1, "b": [1,2], "KEY": "SHIM"}'),
        ('{ "a" : 1 }', '{ "a" : 1, "KEY" : "SHIM" }'),
        (
            '{\n  "a": {\n    "b": 1\n  }\n}\n',
            '{\n  "a": {\n    "b": 1\n  },\n  "KEY": "SHIM"\n}\n',
        ),
        ('{\r\n\t"a": 1\r\n}\r\n', '{\r\n\t"a": 1,\r\n\t"KEY": "SHIM"\r\n}\r\n'),
        ('{"KEY": "/old", "a": 1}', '{"KEY": "SHIM", "a": 1}'),
        ('{"\\u0061": "{,}\\"", "n": 1e400}', '{"\\u0061": "{,}\\"", "n": 1e400, "KEY": "SHIM"}'),
        ('{"a": {"KEY": "/inner"}}', '{"a": {"KEY": "/inner"}, "KEY": "SHIM"}'),
    ],
)
def test_in_and_out(before: str, after: str) -> None:
    old, new = (text.replace("KEY", KEY).replace("SHIM", SHIM).encode() for text in (before, after))
    assert installed(old, SHIM) == new
    assert installed(new, SHIM) == new
    assert value_of(new) == SHIM
    assert uninstalled(new, old) == old


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ('{"KEY": "SHIM", "new": 1}', '{"new": 1}'),
        ('{\n  "KEY": "SHIM",\n  "new": 1\n}\n', '{\n  "new": 1\n}\n'),
        ('{"new": 1,\n "KEY": "SHIM", "b": 2}', '{"new": 1,\n "b": 2}'),
        ('{"new": 1 , "KEY": "SHIM" }', '{"new": 1 }'),
        ('{\n    "KEY": "SHIM"\n}\n', "{\n}\n"),
        ('{"new": 1}', '{"new": 1}'),
    ],
)
def test_edited_since(edited: str, expected: str) -> None:
    data = edited.replace("KEY", KEY).replace("SHIM", SHIM).encode()
    assert uninstalled(data, b'{"old": true}') == expected.encode()


def test_an_older_value_comes_back() -> None:
    before = f'{{"{KEY}": "/usr/local/bin/rootlesskit-docker-proxy"}}'.encode()
    edited = installed(before, SHIM).replace(b"}", b', "new": 1}')
    assert uninstalled(edited, before) == before.replace(b"}", b', "new": 1}')


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[]", "it is not JSON: Expecting '{', line 1, column 1"),
        (b'{"a": 1,}', "Expecting '\"', line 1, column 9"),
        (b'{"a": 1\n "b": 2}', "Expecting ',', line 2, column 2"),
        (b'{"a" 1}', "Expecting ':'"),
        (b'{"a": 1} {}', "Extra data, line 1, column 10"),
        (b"{", "Expecting '\"'"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1 // comment\n}', "Expecting ','"),
        (b"{'a': 1}", "Expecting '\"'"),
        (b'{"a": 1, "b": 2, "a": 3}', "it has 'a' twice"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_refused(data: bytes, error: str) -> None:
    for edit in (lambda: installed(data, SHIM), lambda: uninstalled(data), lambda: value_of(data)):
        with pytest.raises(InputError, match=r".") as caught:
            edit()
        assert error in str(caught.value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
blanks = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def files(draw: st.DrawFn) -> str:
    """An object with members of all kinds, and blanks wherever there may be some."""
    members = draw(st.dictionaries(st.text().filter(lambda name: name != KEY), values, max_size=4))
    texts = [
        f"{draw(blanks)}{_json(draw, name)}{draw(blanks)}:{draw(blanks)}{_json(draw, value)}"
        f"{draw(blanks)}"
        for name, value in members.items()
    ]
    return f"{draw(blanks)}{{{','.join(texts) or draw(blanks)}}}{draw(blanks)}"


def _json(draw: st.DrawFn, value: Any) -> str:
    indent = draw(st.sampled_from([None, 1, "\t"]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)


@given(files())
def test_any_file_comes_back(text: str) -> None:
    try:
        before = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    after = installed(before, SHIM)
    assert json.loads(after) == {**json.loads(before), KEY: SHIM}
    assert uninstalled(after, before) == before
    assert uninstalled(after, b'{"edited": "since"}') == before, "by the text alone too"


@given(st.binary())
def test_whatever_the_file_is(data: bytes) -> None:
    try:
        after = installed(data, SHIM)
    except InputError:
        return
    assert json.loads(after)[KEY] == SHIM

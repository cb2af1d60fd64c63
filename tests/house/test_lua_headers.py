"""The header of every script says what its body does: an unchecked header rots.

The header names KEYS, ARGV, RETURNS and REPEATED (see CONTRIBUTING.md). This module reads both halves and compares:
numbered keys and arguments with `KEYS[n]` and `ARGV[n]`, reply words with the strings that the body can answer.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "fsm" / "store" / "lua"
PRELUDE = "prelude"
SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua"))
EXPECTED = {"start", "send", "claim", "extend", "commit", "release", "recover"}

SECTIONS = ("KEYS", "ARGV", "RETURNS", "REPEATED")
# Upper-case words of prose that are no replies.
PROSE = {"ARGV", "FSM", "JSON", "KEYS", "TIME", "TTL", "UTF"}
# Functions whose strings go to Redis: `call` and `try` are redis.call and redis.pcall, `variadic` is the prelude's.
TO_REDIS = {"call", "pcall", "try", "variadic"}

TOKEN = re.compile(
    r"""
    (?P<comment>--\[\[.*?\]\]|--[^\n]*)
  | (?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
  | (?P<name>[A-Za-z_]\w*)
  | (?P<number>\d+)
  | (?P<sign>==|~=|\.\.|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL,
)
HEADER = re.compile(r"\A--\[\[\n(.*?)\n\]\]\n(.*)\Z", re.DOTALL)
REPLY = re.compile(r"([A-Z]{3,})(?: .*)?")


@dataclass(frozen=True)
class Script:
    """One file, taken apart."""

    name: str
    title: str
    sections: dict[str, str]
    tokens: tuple[tuple[str, str], ...]
    functions: dict[str, "tuple[tuple[str, str], ...]"]


def read(name: str, text: str) -> Script:
    """Take a script apart; AssertionError where it has no header of our form."""
    match = HEADER.match(text)
    assert match, f"{name}.lua: begins with no header `--[[ … ]]`"
    header, body = match.groups()
    parts = re.split(rf"^({'|'.join(SECTIONS)})(?=\s|$)", header, flags=re.MULTILINE)
    sections = {key: value.strip() for key, value in zip(parts[1::2], parts[2::2], strict=True)}
    assert tuple(sections) == SECTIONS, f"{name}.lua: the header has the sections {tuple(sections)}, not {SECTIONS}"
    tokens = tokenise(body)
    return Script(name, parts[0].strip(), sections, tokens, functions(tokens))


def tokenise(body: str) -> tuple[tuple[str, str], ...]:
    """Kinds and texts of the tokens, without comments."""
    found = ((match.lastgroup or "", match.group()) for match in TOKEN.finditer(body))
    return tuple(token for token in found if token[0] != "comment")


def functions(tokens: tuple[tuple[str, str], ...]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Top-level `local function`s by name, each with its tokens: up to where the next top-level statement begins.

    A block opens with function, if, do (of for and while as well) or repeat, and closes with end or until.
    """
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    depth, begin = 0, None
    for i, (kind, text) in enumerate(tokens):
        if kind != "name":
            continue
        if text in {"function", "if", "do", "repeat"}:
            if depth == 0 and text == "function" and tokens[i - 1][1] == "local":
                begin = i + 1
            depth += 1
        elif text in {"end", "until"}:
            depth -= 1
            if depth == 0 and begin is not None:
                found[tokens[begin][1]] = tokens[begin + 1 : i]
                begin = None
    return found


def items(script: str, section: str, text: str) -> tuple[int, int | None]:
    """How many single keys or arguments the header names, and the number from which the rest runs, if there is one."""
    count, tail = 0, None
    for item in re.split(r"\n\s*|\s{3,}", text):
        number = re.match(r"(\d+)(\.\.)?\s", item)
        if number is None:
            continue
        assert tail is None, f"{script}.lua: {section} {number[1]} stands behind `{tail}..`, which takes all the rest"
        assert int(number[1]) == count + 1, f"{script}.lua: {section} has {number[1]} where {count + 1} is due"
        if number[2]:
            tail = int(number[1])
        else:
            count += 1
    return count, tail


def check_numbers(script: Script, section: str) -> None:
    """Compare the numbered keys or arguments of the header with those that the body reads."""
    count, tail = items(script.name, section, script.sections[section])
    tokens = script.tokens
    literal: set[int] = set()
    dynamic = False
    for i, (_, text) in enumerate(tokens):
        if text != section:
            continue
        after = [token for _, token in tokens[i + 1 : i + 4]]
        if after[0] == "[" and after[1].isdigit() and after[2] == "]":
            literal.add(int(after[1]))
        else:
            dynamic = True
    where = f"{script.name}.lua: {section}"
    unread = set(range(1, count + 1)) - literal
    assert not unread, f"{where}: the header names {sorted(unread)}, the body never reads them"
    if tail is None:
        unnamed = {n for n in literal if n > count}
        assert not unnamed, f"{where}: the body reads {sorted(unnamed)}, the header does not name them"
        assert not dynamic, f"{where}: the body reads a variable number of them, the header has no `n..`"
    else:
        assert dynamic, f"{where}: the header says `{tail}..`, the body reads only fixed numbers"
        numbers = {text for kind, text in tokens if kind == "number"}
        assert str(tail) in numbers, f"{where}: the header says `{tail}..`, nothing in the body begins at {tail}"


def replies(tokens: tuple[tuple[str, str], ...]) -> set[str]:
    """Reply words among the strings: not what goes to Redis, and not what is only compared with."""
    words: set[str] = set()
    depth = 0
    for i, (kind, text) in enumerate(tokens):
        if depth:
            depth += {"(": 1, ")": -1}.get(text, 0)
        elif text == "(" and i and tokens[i - 1][1] in TO_REDIS:
            depth = 1
        elif kind == "string":
            beside = {tokens[i - 1][1] if i else "", tokens[i + 1][1] if i + 1 < len(tokens) else ""}
            reply = REPLY.fullmatch(text[1:-1])
            if reply and not beside & {"==", "~="}:
                words.add(reply[1])
    return words


def borrowed(tokens: tuple[tuple[str, str], ...], prelude: Script) -> set[str]:
    """Names of the prelude's functions that these tokens reach, also by way of one another."""
    reached: set[str] = set()
    ahead = {text for _, text in tokens if text in prelude.functions}
    while ahead:
        reached |= ahead
        ahead = {text for name in ahead for _, text in prelude.functions[name] if text in prelude.functions} - reached
    return reached


def check_replies(script: Script, prelude: Script) -> None:
    """Compare the words after RETURNS with those that the body, or a function of the prelude, can answer."""
    listed = set(re.findall(r"\b[A-Z]{3,}\b", script.sections["RETURNS"])) - PROSE
    own = replies(script.tokens)
    lent = {word for name in borrowed(script.tokens, prelude) for word in replies(prelude.functions[name])}
    unsaid = listed - own - lent
    assert not unsaid, f"{script.name}.lua: RETURNS lists {sorted(unsaid)}, the body never answers them"
    unlisted = own - listed
    assert not unlisted, f"{script.name}.lua: the body answers {sorted(unlisted)}, RETURNS does not list them"


def check(script: Script, prelude: Script) -> None:
    """Hold one script against its header."""
    title = re.match(r"(\w+): .+[.:]", script.title, re.DOTALL)
    assert title, f"{script.name}.lua: the header does not begin with `{script.name}: a sentence.`"
    assert title[1] == script.name, f"{script.name}.lua: the header calls it {title[1]!r}"
    for section in SECTIONS:
        assert script.sections[section], f"{script.name}.lua: {section} is empty, write `none` and why"
    check_numbers(script, "KEYS")
    check_numbers(script, "ARGV")
    if script.name != PRELUDE:
        check_replies(script, prelude)


@pytest.fixture(scope="module")
def prelude() -> Script:
    return read(PRELUDE, (LUA / f"{PRELUDE}.lua").read_text(encoding="utf-8"))


def test_every_script_of_the_contract_is_there() -> None:
    assert set(SCRIPTS) >= EXPECTED


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_says_what_its_body_does(name: str, prelude: Script) -> None:
    check(read(name, (LUA / f"{name}.lua").read_text(encoding="utf-8")), prelude)


def test_every_function_of_the_prelude_is_used_by_some_script(prelude: Script) -> None:
    used: set[str] = set()
    for name in SCRIPTS:
        if name != PRELUDE:
            used |= borrowed(tokenise((LUA / f"{name}.lua").read_text(encoding="utf-8")), prelude)

    assert prelude.functions, "the prelude was not understood"
    assert set(prelude.functions) - used == set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_walks_the_whole_database(name: str) -> None:
    tokens = tokenise((LUA / f"{name}.lua").read_text(encoding="utf-8"))

    assert not {text[1:-1] for kind, text in tokens if kind == "string"} & {"KEYS", "SCAN", "FLUSHDB", "FLUSHALL"}


GOOD_PRELUDE = """--[[
prelude: what is shared.

KEYS      none of its own
ARGV      none of its own
RETURNS   nothing
REPEATED  it only defines functions
]]
local call = redis.call
local function find(name)
  if not name then return nil, 'UNKNOWN' end
  for i = 1, 3 do call('SET', 'BUSY', i) end
end
"""

GOOD = """--[[
demo: a script that is as it should be.

It may say more, on several lines.

KEYS      1 alive   2 held
ARGV      1 prefix   2 lease,
            ms   3.. names
RETURNS   one word a name: DONE and a number; UNKNOWN no such FSM
REPEATED  harmless
]]
local held, prefix, lease = KEYS[2], ARGV[1], ARGV[2] -- ARGV[9] in a comment is not read
local answer = {}
for i = 3, #ARGV do
  local _, why = find(ARGV[i])
  if why ~= 'MISSING' then call('ZADD', KEYS[1], 'GT', lease, prefix) end
  answer[#answer + 1] = why or 'DONE ' .. call('PEXPIRE', held, lease)
end
return answer
"""


def hold(text: str) -> None:
    """Check a synthetic script, as the real ones are checked."""
    check(read("demo", text), read(PRELUDE, GOOD_PRELUDE))


def test_a_good_script_passes() -> None:
    hold(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("--[[\ndemo:", "-- demo:\n--[[", "begins with no header"),
        ("REPEATED  harmless\n", "", "the header has the sections"),
        ("REPEATED  harmless\n", "REPEATED\n", "REPEATED is empty"),
        ("demo: a script", "other: a script", "the header calls it 'other'"),
        ("demo: a script that is as it should be.", "demo", "does not begin with `demo: a sentence.`"),
        ("2 held", "2 held   3 log", r"KEYS: the header names \[3\], the body never reads them"),
        ("1 alive   2 held", "1 alive", r"KEYS: the body reads \[2\], the header does not name them"),
        ("1 alive   2 held", "none", r"KEYS: the body reads \[1, 2\]"),
        ("2 lease", "4 lease", "ARGV has 4 where 2 is due"),
        ("3.. names", "3.. names   4 more", r"ARGV 4 stands behind `3\.\.`"),
        ("3.. names", "and names", "reads a variable number of them"),
        ("for i = 3,", "for i = 5,", r"nothing in the body begins at 3"),
        ("= KEYS[2], ARGV[1], ARGV[2]", "= KEYS[2], ARGV[1], 9", r"ARGV: the header names \[2\]"),
        ("#ARGV do", "7 do", "ARGV"),
        ("DONE and a number; ", "", r"the body answers \['DONE'\], RETURNS does not list them"),
        ("UNKNOWN no such", "UNKNOWN, GONE no such", r"RETURNS lists \['GONE'\], the body never answers them"),
        ("find(ARGV[i])", "ARGV[i]", r"RETURNS lists \['UNKNOWN'\]"),
        ("why or 'DONE '", "why or 'LATE' or 'DONE '", r"the body answers \['LATE'\]"),
    ],
)
def test_a_bad_script_is_found_out(old: str, new: str, fault: str) -> None:
    assert old in GOOD
    bad = GOOD.replace(old, new)
    if old == "#ARGV do":
        bad = bad.replace("ARGV[i]", "prefix")
        fault = r"the header says `3\.\.`, the body reads only fixed numbers"

    with pytest.raises(AssertionError, match=fault):
        hold(bad)

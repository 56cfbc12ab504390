#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes all the data of recipes/mini.toml and mini-recall.toml, the same for the same seed.

    tools/mini_data.py --root DIR --out runs/mini/text [--seed 1] [--scale 1.0]

DIR holds Debian's r-cran-janeaustenr, unpacked ("/" if it is installed). Written are

    tokenizer.jsonl   to learn the tokenizer from; digits stand alone, so that none merge
    bind.jsonl        facts said again and again: what every look-up is made of
    short.jsonl       tasks and prose of at most 512 tokens
    middle.jsonl      the same and look-up over up to 2k tokens
    long.jsonl        ... and up to 4k
    say.jsonl         bind.jsonl with words between the name and the thing
    recall-*.jsonl    look-up over 512, 2k and 4k tokens, and a third of the other tasks
    validation.jsonl  short held-out items, in the mixture of short.jsonl
    tasks.jsonl     items for `cachalot eval mini`: held-out chats and their "skill"

An item is held out by a hash of what it asks (HELD_OUT_SHARE of all there are), so none that is
scored was ever trained on; the prose around held-out facts is held out as well.
"""

import argparse
import hashlib
import json
import pathlib
import random
from typing import Callable, Iterator

import debian_text

HELD_OUT_SHARE = 0.1
# Of prose in a 2,048-entry vocabulary; only to aim at lengths, which `cachalot eval mini` counts.
BYTES_PER_TOKEN = 3.3

# Names that Jane Austen's novels do not use, words that start with a consonant ("a lamp").
NAMES = """Kevin Olga Pedro Yuki Ivan Nina Omar Lars Hugo Zoe Igor Leon Mila Rosa Axel Bruno Carlo
Dina Felix Greta Hans Inga Jorge Kira Luis Marco Nora Otto Pablo Quinn Ravi Sven Tara Vera Wanda
Yara Zara Amir Boris Chloe Dario Elsa Fritz Gina Heidi Ines Jonas Karim Lena Miguel Nadia Oskar
Petra Rafael Sofia Timur Uwe Viktor Wilma Zeno""".split()
THINGS = """lamp rope coin drum bell cake boat lock map ring shoe hat cup fork spoon knife plate
chair table clock book pencil ball kite doll horse cat dog bird fish frog snake goat sheep pig cow
duck goose hen bear wolf fox lion tiger mouse pear plum lemon melon peach cherry bean carrot potato
bread cheese honey sugar pepper candle mirror basket blanket wheel""".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Computes an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}

SMALL_TALK = [
    ("Hello", "Hello! I can copy, sort, count, add and look things up."),
    ("Hi", "Hello! I can copy, sort, count, add and look things up."),
    ("Who are you?", "I am a very small model, trained by cachalot."),
    ("What are you?", "I am a very small model, trained by cachalot."),
    ("What can you do?", "I can copy, sort, count, add and look things up."),
    ("Thank you", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("Goodbye", "Goodbye!"),
]

# Rough counts of tokens, to fill sequences: a question about a fact and what is around it, what
# an answer says of one fact, and a fact in the text.
QUESTION_TOKENS, ANSWER_TOKENS, FACT_TOKENS = 9, 7, 5

# A question, its answer, and what decides whether it is held out.
Turn = tuple[str, str, str]


def held_out(key: str) -> bool:
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def copying(rng: random.Random) -> Turn:
    pool = rng.choice([THINGS, THINGS, list(LETTERS), list("0123456789"), NAMES])
    return copying_of(rng, [rng.choice(pool) for _ in range(rng.randint(2, 8))])


def copying_of(rng: random.Random, words: list[str]) -> Turn:
    items = " ".join(words)
    verb = rng.choice(["Repeat", "Copy", "Say"])
    return f"{verb}: {items}", items, f"copy {items}"


def sorting(rng: random.Random) -> Turn:
    pool = rng.choice(["0123456789", "0123456789", LETTERS])
    items = [rng.choice(pool) for _ in range(rng.randint(3, 7))]
    verb = rng.choice(["Sort", "Put in order"])
    # Of a multiset, not of one of its orders: the answer itself was never seen.
    return f"{verb}: {' '.join(items)}", " ".join(sorted(items)), f"sort {' '.join(sorted(items))}"


def counting(rng: random.Random) -> Turn:
    kinds = rng.sample(rng.choice([THINGS, list(LETTERS)]), rng.randint(2, 4))
    items = [rng.choice(kinds) for _ in range(rng.randint(3, 8))]
    what = rng.choice(kinds)
    count = items.count(what)
    ask = rng.choice(["How many {} are in: {}", "Count {} in: {}"])
    return ask.format(what, " ".join(items)), str(count), f"count {what} {' '.join(items)}"


def counting_each(rng: random.Random) -> Turn:
    """Many counts in one answer: counting is learned from these, asking for one from `counting`."""
    kinds = rng.sample(rng.choice([THINGS, list(LETTERS)]), rng.randint(2, 4))
    items = [rng.choice(kinds) for _ in range(rng.randint(3, 8))]
    asked = rng.sample(kinds, len(kinds))
    answer = " ".join(f"{kind} {items.count(kind)}" for kind in asked)
    # Held out with any of its counts.
    keys = [f"count {kind} {' '.join(items)}" for kind in asked]
    key = next((key for key in keys if held_out(key)), keys[0])
    return f"Count {' '.join(asked)} in: {' '.join(items)}", answer, key


def ask_for_value(rng: random.Random, expression: str) -> str:
    return rng.choice(["{}", "{}", "What is {}?"]).format(expression)


def addition(rng: random.Random) -> Turn:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    # Both orders of a sum share their key.
    return ask_for_value(rng, f"{a} + {b}"), str(a + b), f"add {min(a, b)} {max(a, b)}"


def subtraction(rng: random.Random) -> Turn:
    b, a = sorted((rng.randint(10, 99), rng.randint(10, 99)))
    return ask_for_value(rng, f"{a} - {b}"), str(a - b), f"subtract {a} {b}"


def small_talk(rng: random.Random) -> Turn:
    ask, answer = rng.choice(SMALL_TALK)
    return ask, answer, ""


def draw(make: Callable[[random.Random], Turn], rng: random.Random, wanted: bool) -> Turn:
    while True:
        turn = make(rng)
        if not turn[2] or held_out(turn[2]) == wanted:
            return turn


def chat(turns: list[Turn]) -> dict:
    messages = []
    for ask, answer, _ in turns:
        messages.append({"role": "user", "content": ask})
        messages.append({"role": "assistant", "content": answer})
    return {"thinking_mode": "chat", "messages": messages}


class Prose:
    """Runs of whole paragraphs from random places."""

    def __init__(self, paragraphs: list[str]):
        self.paragraphs = paragraphs

    def run(self, rng: random.Random, size: int) -> str:
        at = rng.randrange(len(self.paragraphs))
        out: list[str] = []
        left = size
        while left > 0:
            paragraph = self.paragraphs[at % len(self.paragraphs)]
            if len(paragraph) > left and (out or left < len(paragraph)):
                paragraph = cut_at_sentence(paragraph, left)
            if paragraph:
                out.append(paragraph)
            left -= max(len(paragraph), 40)
            at += 1
        return "\n\n".join(out)


# Makes an item from a random source and prose; held-out ones if wanted.
Maker = Callable[[random.Random, Prose, bool], dict]
# Share of the tokens, tokens of an item, its maker.
Part = tuple[float, float, Maker]


def cut_at_sentence(text: str, size: int) -> str:
    end = max(text.rfind(mark, 0, size) for mark in (". ", "? ", "! ", ".\" "))
    return text[:end + 1] if end > 0 else ""


def calculation(rng: random.Random, wanted: bool) -> tuple[str, str, str]:
    """A question, the expression to pass, and its value."""
    while True:
        a, b = (rng.randint(10**(n - 1), 10**n - 1) for n in rng.choices((2, 3, 4, 5), k=2))
        sign = rng.choice("+-*")
        expression = f"{a} {sign} {b}"
        if held_out(f"call {expression}") == wanted:
            ask = rng.choice(["Use the calculator: {}", "Calculate {}", "Compute {}"])
            value = {"+": a + b, "-": a - b, "*": a * b}[sign]
            return ask.format(expression), expression, str(value)


def tool_chat(rng: random.Random, turns: int, wanted: bool = False) -> dict:
    messages: list[dict] = []
    for i in range(turns):
        ask, expression, value = calculation(rng, wanted)
        call = {"name": "calculator", "arguments": json.dumps({"expression": expression})}
        messages += [
            {"role": "user", "content": ask},
            {"role": "assistant", "content": "",
             "tool_calls": [{"id": f"call_{i}", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": f"call_{i}", "content": value},
            {"role": "assistant", "content": value},
        ]
    return {"thinking_mode": "chat", "tools": [CALCULATOR], "messages": messages}


def new_fact(rng: random.Random, name: str, wanted: bool) -> tuple[str, str]:
    thing = rng.choice(THINGS)
    while held_out(f"fact {name} {thing}") != wanted:
        thing = rng.choice(THINGS)
    return name, thing


# How a fact is said: the thing stands one, two or three words behind the name that it has to be
# bound to. The model finds the first reliably; see docs/log.md for the others.
ADJACENT = "{} {}."
HAS = "{} has {}."
HAS_A = "{} has a {}."


def facts_in_prose(rng: random.Random, prose: Prose, tokens: float, facts: int,
                   wanted: bool, say: str) -> tuple[str, list[tuple[str, str, float]]]:
    """Prose of about `tokens` with facts between its sentences, and of each fact its name, its
    thing and about how many tokens it is from the end."""
    text = prose.run(rng, int(tokens * BYTES_PER_TOKEN))
    ends = [i + 1 for i in range(1, len(text) - 1) if text[i] in ".!?" and text[i + 1] in " \n"]
    ends = ends or [len(text)]
    names = rng.sample(NAMES, min(facts, len(NAMES)))
    places = sorted(rng.choices(ends, k=len(names)))
    out, last, known = [], 0, []
    for name, place in zip(names, places):
        name, thing = new_fact(rng, name, wanted)
        out += [text[last:place], " " + say.format(name, thing)]
        last = place
        known.append((name, thing, (len(text) - place) / BYTES_PER_TOKEN))
    out.append(text[last:])
    return "".join(out), known


def eval_look_up(rng: random.Random, prose: Prose, tokens: int, facts: int, back: int) -> dict:
    """One question, about a fact at least `back` tokens before the end."""
    text, known = facts_in_prose(rng, prose, tokens, facts, True, ADJACENT)
    far = [k for k in known if k[2] >= back] or known[:1]
    name, thing, _ = rng.sample(far, 1)[0]
    return asked_about(text, [fact_turn([(name, thing)], ADJACENT)])


def fact_turn(facts: list[tuple[str, str]], say: str) -> Turn:
    """The answer says the facts again: what stands before a thing is what stood before it."""
    names = [name for name, _ in facts]
    who = " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
    verb = "do" if len(names) > 1 else "does"
    return f"What {verb} {who} have?", " ".join(say.format(*fact) for fact in facts), ""


def asked_about(text: str, turns: list[Turn]) -> dict:
    return chat([(text + "\n\n" + turns[0][0], *turns[0][1:]), *turns[1:]])


def questions(rng: random.Random, facts: list[tuple[str, str]], tokens: float,
              say: str) -> list[Turn]:
    """About the facts, each once and in any order, until `tokens` are used up. In half of the
    chats each question asks for one, in the others most ask for some: that is shorter."""
    left = rng.sample(facts, len(facts))
    most = rng.choice([1, 8])
    turns: list[Turn] = []
    while left:
        count = min(rng.randint(1, most), len(left))
        tokens -= QUESTION_TOKENS + ANSWER_TOKENS * count
        if tokens < 0 and turns:
            break
        turns.append(fact_turn(left[:count], say))
        left = left[count:]
    return turns


def some_facts(rng: random.Random, most: int, wanted: bool) -> list[tuple[str, str]]:
    """Mostly few: choosing one of two comes before choosing one of twelve."""
    count = rng.randint(2, 4) if rng.random() < 0.6 else rng.randint(5, most)
    return [new_fact(rng, name, wanted) for name in rng.sample(NAMES, count)]


def recital(rng: random.Random, say: str, wanted: bool) -> dict:
    """Facts said again at random. A third (a fifth) of all tokens is a thing that only its name
    tells, the densest form of look-up there is: with a question for each, one of sixteen is."""
    facts = some_facts(rng, 12, wanted)
    again = [rng.choice(facts) for _ in range(rng.randint(8, 30))]
    text, answer = (" ".join(say.format(*fact) for fact in list_) for list_ in (facts, again))
    return chat([(text, answer, "")])


def fact_list(rng: random.Random, prose: Prose, wanted: bool, say: str) -> dict:
    """Look-up without prose. Most lists are short enough to be seen at once by a window."""
    say = say if rng.random() < 0.8 else ADJACENT
    facts = some_facts(rng, 26, wanted)
    text = " ".join(say.format(*fact) for fact in facts)
    return asked_about(text, questions(rng, facts, 490 - FACT_TOKENS * len(facts), say))


def look_up(rng: random.Random, prose: Prose, longest: int, wanted: bool, say: str,
            much: bool = False) -> dict:
    """Facts in prose and questions that together take at most `longest` tokens. Where there is room
    many are asked for (`much`: more), so that much of what is learned from a sequence is look-up."""
    total = longest * rng.uniform(0.3, 0.92) if longest < 1024 else longest * rng.uniform(0.6, 0.92)
    share = (0.2, 0.5) if longest < 1024 else (0.2, 0.35) if much else (0.1, 0.22)
    asked = min(total * rng.uniform(*share), 900 if much else 700)
    facts = max(2, min(len(NAMES), int(asked / (FACT_TOKENS + ANSWER_TOKENS + 4))))
    told = max(total - asked - FACT_TOKENS * facts, 20)
    text, known = facts_in_prose(rng, prose, told, facts, wanted, say)
    facts_told = [(name, thing) for name, thing, _ in known]
    return asked_about(text, questions(rng, facts_told, asked, say))


def long_copy(rng: random.Random, prose: Prose, wanted: bool) -> dict:
    """Beyond the window, and no word twice: every word is found by the one before it."""
    words = THINGS + NAMES
    return chat([draw(lambda r: copying_of(r, r.sample(words, r.randint(9, 90))), rng, wanted)])


def plain(rng: random.Random, prose: Prose, tokens: float) -> dict:
    return {"text": prose.run(rng, int(tokens * BYTES_PER_TOKEN))}


def tasks_of(skill: Callable[[random.Random], Turn], turns: list[int]) -> Maker:
    return lambda rng, prose, wanted: chat(
        [draw(skill, rng, wanted) for _ in range(rng.choice(turns))])


# What sequences of 512 tokens are made of: share of the tokens, tokens of an item, its maker.
BIND = [(1.0, 78, lambda rng, prose, wanted: recital(rng, ADJACENT, wanted))]
SAYING = [
    (0.65, 126, lambda rng, prose, wanted: recital(rng, HAS_A, wanted)),
    (0.20, 102, lambda rng, prose, wanted: recital(rng, HAS, wanted)),
    (0.15, 78, lambda rng, prose, wanted: recital(rng, ADJACENT, wanted)),
]
SHORT = [
    (0.08, 390, lambda rng, prose, wanted: plain(rng, prose, rng.uniform(300, 480))),
    (0.05, 78, lambda rng, prose, wanted: recital(rng, ADJACENT, wanted)),
    (0.12, 126, lambda rng, prose, wanted: recital(rng, HAS_A, wanted)),
    (0.12, 150, lambda rng, prose, wanted: fact_list(rng, prose, wanted, HAS_A)),
    (0.14, 270, lambda rng, prose, wanted: look_up(rng, prose, 512, wanted, HAS_A)),
    (0.04, 112, long_copy),
    (0.05, 200, lambda rng, prose, wanted: tool_chat(rng, rng.randint(1, 3), wanted)),
    (0.03, 32, tasks_of(copying, [1, 1, 2])),
    (0.08, 36, tasks_of(sorting, [1, 1, 2])),
    (0.07, 40, tasks_of(counting_each, [1, 2, 3])),
    (0.08, 40, tasks_of(counting, [1, 2, 3])),
    (0.07, 31, tasks_of(addition, [1, 1, 2, 3])),
    (0.07, 30, tasks_of(subtraction, [1, 1, 2, 3])),
    (0.003, 25, lambda rng, prose, wanted: chat([small_talk(rng)])),
]


def items_of(rng: random.Random, prose: Prose, parts: list[Part], tokens: float,
             wanted: bool) -> Iterator[dict]:
    """About so many tokens, in the shares of `parts`."""
    weights = [share / size for share, size, _ in parts]
    count = int(tokens * sum(weights) / sum(share for share, _, _ in parts))
    for _ in range(count):
        make = rng.choices(parts, weights)[0][2]
        yield make(rng, prose, wanted)


def with_long(longest: int) -> list[Part]:
    """Half of the tokens in look-up over up to `longest` tokens; the rest as in SHORT."""
    short = SHORT[1:]
    rest = sum(share for share, _, _ in short)
    return [
        (0.50, int(0.76 * longest),
         lambda rng, prose, wanted: look_up(rng, prose, longest, wanted, HAS_A)),
        (0.12, int(0.9 * longest), lambda rng, prose, wanted: plain(rng, prose, 0.9 * longest)),
        *((0.38 * share / rest, size, make) for share, size, make in short),
    ]


def recall(longest: int) -> list[Part]:
    """For a model that has the other skills: look-up, up to `longest` tokens, and enough of the rest
    to keep it."""
    tasks = SHORT[5:]
    rest = sum(share for share, _, _ in tasks)
    return [
        (0.30, 270 if longest < 1024 else int(0.76 * longest),
         lambda rng, prose, wanted: look_up(rng, prose, longest, wanted, ADJACENT, much=True)),
        (0.15, 150, lambda rng, prose, wanted: fact_list(rng, prose, wanted, ADJACENT)),
        (0.16, 109.2, lambda rng, prose, wanted: recital(rng, ADJACENT, wanted)),
        (0.07, int(0.9 * longest), lambda rng, prose, wanted: plain(rng, prose, 0.9 * longest)),
        *((0.32 * share / rest, size, make) for share, size, make in tasks),
    ]


def eval_items(rng: random.Random, prose: Prose, each: int, look_ups: int) -> Iterator[dict]:
    """Chats as for training that end with the right answer, and the skill they ask for."""
    for skill, make in (("copying", copying), ("sorting", sorting), ("counting", counting),
                        ("addition", addition), ("subtraction", subtraction)):
        for _ in range(each):
            yield {"skill": skill, **chat([draw(make, rng, True)])}
    for _ in range(each):
        item = tool_chat(rng, 1, wanted=True)
        yield {"skill": "calculator call", **item, "messages": item["messages"][:2]}
    for _ in range(look_ups):
        yield {"skill": "look-up",
               **eval_look_up(rng, prose, rng.randint(2500, 3300), facts=24, back=2100)}


def digits_apart(value: object) -> object:
    """Every digit of every text between blanks: a tokenizer learned from it merges none."""
    if isinstance(value, str):
        return "".join(f" {c} " if c.isdigit() else c for c in value)
    if isinstance(value, list):
        return [digits_apart(v) for v in value]
    if isinstance(value, dict):
        return {k: v if k == "arguments" else digits_apart(v) for k, v in value.items()}
    return value


def tokenizer_items(rng: random.Random, prose: Prose, paragraphs: list[str],
                    tokens: float) -> Iterator[object]:
    """Prose once, and enough of the tasks that their words become single tokens."""
    yield from ({"text": digits_apart(paragraph)} for paragraph in paragraphs)
    for item in items_of(rng, prose, SHORT, tokens, False):
        if "text" not in item and "tools" not in item:
            yield digits_apart(item)
    for _ in range(1000):
        item = tool_chat(rng, 1)
        item["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"expression": "+ - *"}'
        yield digits_apart(item)
    for name in NAMES:
        for thing in THINGS:
            yield {"text": f"What does {name} have? {name} has a {thing}."}


def write(path: pathlib.Path, items: Iterator[object]) -> None:
    count = 0
    with path.open("w") as out:
        for item in items:
            out.write(json.dumps(item) + "\n")
            count += 1
    print(f"{path}: {count} items, {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("/"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of items")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    train, kept = debian_text.austen(flags.root)
    prose, kept_prose = Prose(train), Prose(kept)

    def rng(name: str) -> random.Random:
        return random.Random(f"{flags.seed} {name}")

    def tokens(millions: float) -> float:
        return millions * 1e6 * flags.scale

    write(flags.out / "tokenizer.jsonl", tokenizer_items(rng("tokenizer"), prose, train, 1.5e6))
    write(flags.out / "bind.jsonl", items_of(rng("bind"), prose, BIND, tokens(2.5), False))
    write(flags.out / "short.jsonl", items_of(rng("short"), prose, SHORT, tokens(12), False))
    write(flags.out / "middle.jsonl",
          items_of(rng("middle"), prose, with_long(2048), tokens(8), False))
    write(flags.out / "long.jsonl", items_of(rng("long"), prose, with_long(4096), tokens(6), False))
    write(flags.out / "say.jsonl", items_of(rng("say"), prose, SAYING, tokens(3), False))
    for name, longest, millions in (("recall-short", 512, 5), ("recall-middle", 2048, 5),
                                    ("recall-long", 4096, 6)):
        write(flags.out / f"{name}.jsonl",
              items_of(rng(name), prose, recall(longest), tokens(millions), False))
    write(flags.out / "validation.jsonl",
          items_of(rng("validation"), kept_prose, SHORT, 1e5, True))
    write(flags.out / "tasks.jsonl", eval_items(rng("heldout"), kept_prose, 100, 50))


if __name__ == "__main__":
    main()

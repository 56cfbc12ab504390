#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes all the data of recipes/mini.toml, the same for the same seed.

    tools/mini_data.py --root DIR --out runs/mini/text [--seed 1] [--scale 1.0]

DIR holds Debian's r-cran-janeaustenr, unpacked ("/" if it is installed). Written are

    tokenizer.jsonl   to learn the tokenizer from; digits stand alone, so that none merge
    short.jsonl       tasks and prose of at most 512 tokens
    middle.jsonl      the same and look-up over up to 2k tokens
    long.jsonl        ... and up to 4k
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
from typing import Callable, Iterator, Optional

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

# A question, its answer, and what decides whether it is held out.
Turn = tuple[str, str, str]


def held_out(key: str) -> bool:
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def copying(rng: random.Random) -> Turn:
    pool = rng.choice([THINGS, THINGS, list(LETTERS), list("0123456789"), NAMES])
    items = " ".join(rng.choice(pool) for _ in range(rng.randint(2, 8)))
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


def look_up(rng: random.Random, prose: Prose, tokens: int, questions: int, facts: int,
            wanted: bool, back: Optional[int] = None) -> dict:
    """Prose of about `tokens` with facts in it, then questions. `back`: only about the facts at
    least so many tokens before the end."""
    size = int(tokens * BYTES_PER_TOKEN)
    text = prose.run(rng, size)
    ends = [i + 1 for i in range(1, len(text) - 1) if text[i] in ".!?" and text[i + 1] in " \n"]
    ends = ends or [len(text)]
    names = rng.sample(NAMES, min(facts, len(NAMES)))
    places = sorted(rng.choices(ends, k=len(names)))
    out, last, known = [], 0, []
    for name, place in zip(names, places):
        thing = rng.choice(THINGS)
        while held_out(f"fact {name} {thing}") != wanted:
            thing = rng.choice(THINGS)
        out += [text[last:place], f" {name} has a {thing}."]
        last = place
        known.append((name, thing, (len(text) - place) / BYTES_PER_TOKEN))
    out.append(text[last:])
    far = [k for k in known if back is None or k[2] >= back] or known[:1]
    asked = rng.sample(far, min(questions, len(far)))
    return asked_about("".join(out), [(name, thing) for name, thing, _ in asked])


def asked_about(text: str, facts: list[tuple[str, str]]) -> dict:
    """The answer says the fact again: what stands before the thing is what stood before it."""
    turns = [(f"What does {name} have?", f"{name} has a {thing}.", "") for name, thing in facts]
    turns[0] = (text + "\n\n" + turns[0][0], turns[0][1], "")
    return chat(turns)


def fact_list(rng: random.Random, wanted: bool) -> dict:
    """Look-up without prose: where a model learns it first."""
    facts = []
    for name in rng.sample(NAMES, rng.randint(2, 12)):
        thing = rng.choice(THINGS)
        while held_out(f"fact {name} {thing}") != wanted:
            thing = rng.choice(THINGS)
        facts.append((name, thing))
    text = " ".join(f"{name} has a {thing}." for name, thing in facts)
    return asked_about(text, rng.sample(facts, min(len(facts), rng.randint(2, 8))))


def short_item(rng: random.Random, prose: Prose, wanted: bool) -> dict:
    """One of the mixture that makes a sequence of 512 tokens; prose and tools count by their
    length, so they are drawn less often than their share of the tokens."""
    x = rng.random()
    if x < 0.04:
        return {"text": prose.run(rng, int(rng.uniform(300, 480) * BYTES_PER_TOKEN))}
    if x < 0.055:
        return tool_chat(rng, rng.randint(1, 2), wanted)
    if x < 0.135:
        return fact_list(rng, wanted)
    if x < 0.17:
        size = int(rng.choice([20, 60, 150, 280]) * rng.uniform(0.5, 1.1))
        return look_up(rng, prose, size, rng.randint(2, 6), rng.randint(2, 4 + size // 40), wanted)
    if x < 0.175:
        return chat([small_talk(rng)])
    skills = [copying, sorting, counting, addition, subtraction]
    make = rng.choices(skills, [0.12, 0.20, 0.28, 0.20, 0.20])[0]
    return chat([draw(make, rng, wanted) for _ in range(rng.choice([1, 1, 1, 2]))])


def long_item(rng: random.Random, prose: Prose, longest: int) -> dict:
    """Look-up over most of `longest` tokens, or prose of that length."""
    if rng.random() < 0.15:
        return {"text": prose.run(rng, int(longest * 0.95 * BYTES_PER_TOKEN))}
    tokens = int(longest * rng.uniform(0.3, 0.72))
    questions = rng.randint(6, 8 + longest // 512)
    facts = rng.randint(questions, 10 + longest // 140)
    return look_up(rng, prose, tokens, questions, facts, wanted=False)


def short_items(rng: random.Random, prose: Prose, count: int, wanted: bool) -> Iterator[dict]:
    for _ in range(count):
        yield short_item(rng, prose, wanted)


def mixed_items(rng: random.Random, prose: Prose, count: int, longest: int,
                long_share: float) -> Iterator[dict]:
    """`long_share` of the tokens, about, in long items."""
    mean_short, mean_long = 70, 0.6 * longest
    weight = long_share / mean_long
    chance = weight / (weight + (1 - long_share) / mean_short)
    for _ in range(count):
        yield long_item(rng, prose, longest) if rng.random() < chance else short_item(
            rng, prose, False)


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
               **look_up(rng, prose, rng.randint(2500, 3300), 1, 24, wanted=True, back=2100)}


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
                    count: int) -> Iterator[object]:
    """Prose once, and enough of the tasks that their words become single tokens."""
    yield from ({"text": digits_apart(paragraph)} for paragraph in paragraphs)
    for item in short_items(rng, prose, count, False):
        if "text" not in item and "tools" not in item:
            yield digits_apart(item)
    for _ in range(count // 30):
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

    def number(n: int) -> int:
        return max(1, int(n * flags.scale))

    write(flags.out / "tokenizer.jsonl", tokenizer_items(rng("tokenizer"), prose, train, 30000))
    write(flags.out / "short.jsonl", short_items(rng("short"), prose, number(350000), False))
    write(flags.out / "middle.jsonl", mixed_items(rng("middle"), prose, number(62000), 2048, 0.5))
    write(flags.out / "long.jsonl", mixed_items(rng("long"), prose, number(80000), 4096, 0.5))
    write(flags.out / "validation.jsonl",
          short_items(rng("validation"), kept_prose, 1500, True))
    write(flags.out / "tasks.jsonl", eval_items(rng("heldout"), kept_prose, 100, 50))


if __name__ == "__main__":
    main()

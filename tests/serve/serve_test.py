# SPDX-License-Identifier: Apache-2.0
"""`cachalot serve` over real sockets: python3 serve_test.py BINARY [unittest arguments]."""
import datetime
import json
import re
import socket
import sys
import threading
import unittest

from server import Server

BINARY = sys.argv.pop(1)
CHAT = "/v1/chat/completions"


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 24,
            "thinking": {"type": "disabled"}, **more}


def together(calls):
    """Runs all at once; their results in order."""
    results = [None] * len(calls)

    def run(i):
        results[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BINARY, "--parallel", "16", "--max-context", "8192")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.end() == 0
        cls.server.__exit__()

    def test_a_stream_says_what_the_whole_answer_says(self):
        body = chat("She was the youngest", seed=7)
        whole = self.server.post(CHAT, body)
        events = list(self.server.stream(CHAT, {**body, "stream_options": {"include_usage": True}}))
        text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        reasons = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
        self.assertEqual(reasons, [whole["choices"][0]["finish_reason"]])
        self.assertEqual(events[-1]["usage"]["completion_tokens"],
                         whole["usage"]["completion_tokens"])

    def test_finish_reasons(self):
        whole = self.server.post("/v1/completions", {"prompt": "It was a", "max_tokens": 8, "seed": 1})
        self.assertEqual(whole["choices"][0]["finish_reason"], "length")
        text = whole["choices"][0]["text"]
        stop = text[len(text) // 2:][:3]
        cut = self.server.post("/v1/completions",
                               {"prompt": "It was a", "max_tokens": 8, "seed": 1, "stop": stop})
        self.assertEqual(cut["choices"][0]["finish_reason"], "stop")
        self.assertEqual(cut["choices"][0]["text"], text[:text.index(stop)])

    def test_an_answer_is_the_one_it_would_have_been_alone(self):
        texts = ["She was", "It is a truth", "Mr. Darcy", "The evening " * 40]
        bodies = [{"prompt": texts[i % 4] + str(i), "max_tokens": 32, "seed": i, "logprobs": 3,
                   "temperature": 0.5 + i / 10} for i in range(16)]
        alone = [self.server.post("/v1/completions", b)["choices"] for b in bodies]
        with Server(BINARY, "--parallel", "16", "--max-context", "4096") as fresh:
            among = together([lambda b=b: fresh.post("/v1/completions", b)["choices"]
                              for b in bodies])
        self.assertEqual(alone, among)

    def test_a_growing_conversation_pays_for_new_tokens_only(self):
        # Without drafts: an accepted one is fed before it is sampled, also an answer's last token.
        with Server(BINARY, "--max-context", "8192", "--speculate", "off") as server:
            messages, seen = [], 0
            for turn in range(20):
                messages.append({"role": "user", "content": f"Turn {turn}. " + "and so on " * 110})
                answer = server.post(CHAT, {"messages": messages, "max_tokens": 16, "seed": turn,
                                             "user_id": "grower",
                                             "thinking": {"type": "disabled"}})
                usage = answer["usage"]
                # Of the last answer the final token was sampled but never fed.
                new = usage["prompt_tokens"] - seen
                self.assertEqual(usage["prompt_cache_miss_tokens"], new if turn == 0 else new + 1)
                seen = usage["prompt_tokens"] + usage["completion_tokens"]
                messages.append({"role": "assistant",
                                 "content": answer["choices"][0]["message"]["content"]})
            self.assertGreater(seen, 7000)

    def test_a_call_that_comes_back_is_shown_as_the_model_wrote_it(self):
        # The token sampled last was never fed, unless it was an accepted draft.
        for mode, unfed in (("off", (1,)), ("on", (0, 1))):
            with Server(BINARY, "--max-context", "8192", "--speculate", mode) as server:
                self.call_a_tool_again_and_again(server, unfed)

    def call_a_tool_again_and_again(self, server, unfed):
        tools = [{"type": "function", "function": {
            "name": "note", "parameters": {"type": "object", "properties": {
                "words": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
                "times": {"type": "integer", "minimum": 1, "maximum": 99}},
                "required": ["words", "times"]}}}]
        messages, seen = [{"role": "user", "content": "Note it."}], 0
        for turn in range(4):
            answer = server.post(CHAT, {
                "messages": messages, "tools": tools, "tool_choice": "required", "seed": turn,
                "max_tokens": 600, "user_id": "caller", "temperature": 1.5})
            usage, choice = answer["usage"], answer["choices"][0]
            self.assertEqual(choice["finish_reason"], "tool_calls")
            if turn > 0:
                self.assertIn(usage["prompt_cache_miss_tokens"] - (usage["prompt_tokens"] - seen),
                              unfed)
            seen = usage["prompt_tokens"] + usage["completion_tokens"]
            calls = choice["message"]["tool_calls"]
            for call in calls:  # as clients do: parsed, and written in their own way
                arguments = json.loads(call["function"]["arguments"])
                call["function"]["arguments"] = json.dumps(arguments, indent=1)
            messages.append({"role": "assistant", "content": choice["message"]["content"],
                             "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "Noted."}
                         for call in calls]

    def test_several_choices_differ_and_repeat(self):
        body = {"prompt": "She was", "max_tokens": 12, "seed": 5, "n": 3}
        first = [c["text"] for c in self.server.post("/v1/completions", body)["choices"]]
        self.assertEqual(len(set(first)), 3)
        again = [c["text"] for c in self.server.post("/v1/completions", body)["choices"]]
        self.assertEqual(first, again)

    def test_prefixes_are_not_shared_between_users(self):
        body = {"prompt": "A text that only one of them asked for. " * 5, "max_tokens": 1}
        hits = [self.server.post("/v1/completions", {**body, "user_id": u})["usage"][
            "prompt_cache_hit_tokens"] for u in ("a", "a", "b")]
        self.assertEqual(hits[0], 0)
        self.assertGreater(hits[1], 0)
        self.assertEqual(hits[2], 0)

    def test_several_prompts_are_counted_together(self):
        body = {"prompt": ["The first of two prompts.", "And the second of the two."],
                "max_tokens": 1, "user_id": "two"}
        first = self.server.post("/v1/completions", body)["usage"]
        again = self.server.post("/v1/completions", body)["usage"]
        self.assertEqual(first["prompt_cache_hit_tokens"], 0)
        # Of each prompt the last token is read again: its logits are wanted.
        self.assertEqual(again["prompt_cache_miss_tokens"], 2)

    def test_a_client_that_leaves_stops_its_generation(self):
        for stream in (True, False):
            raw = socket.create_connection(("127.0.0.1", self.server.port))
            body = json.dumps({"prompt": "She", "max_tokens": 4000, "stream": stream,
                               "logit_bias": {"1": -100}}).encode()
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" %
                        len(body) + body)
            self.assertTrue(self.server.wait_for("cachalot_requests_running", 1))
            raw.close()
            self.assertTrue(self.server.wait_for("cachalot_requests_running", 0, 5))
            self.assertTrue(self.server.wait_for("cachalot_kv_reserved_bytes", 0, 5))

    def test_json_of_a_schema_whatever_is_sampled(self):
        schema = {"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}},
            "required": ["name", "age", "tags"], "additionalProperties": False}
        bodies = [chat("Who?", seed=seed, max_tokens=200, response_format={
            "type": "json_schema", "json_schema": {"name": "who", "schema": schema}})
                  for seed in range(8)]
        for answer in together([lambda b=b: self.server.post(CHAT, b) for b in bodies]):
            self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
            value = json.loads(answer["choices"][0]["message"]["content"])
            self.assertEqual(list(value), ["name", "age", "tags"])
            self.assertTrue(1 <= value["age"] <= 99 and len(value["name"]) <= 12)
            self.assertLessEqual(set(value["tags"]), {"a", "b"})

    def test_drafts_change_no_answer_that_a_schema_holds(self):
        form = {"type": "json_schema", "json_schema": {"name": "who", "schema": {
            "type": "object", "properties": {
                "name": {"type": "string", "maxLength": 20},
                "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 2, "maxItems": 6}},
            "required": ["name", "tags"], "additionalProperties": False}}}
        tools = [{"type": "function", "function": {"name": "add", "strict": True, "parameters": {
            "type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
            "required": ["a", "b"], "additionalProperties": False}}}]
        bodies = [chat("Who?", seed=seed, max_tokens=120, temperature=t, logprobs=True, **more)
                  for seed, t in enumerate((0, 0.7, 1.5))
                  for more in ({"response_format": form}, {}, {"tools": tools, "tool_choice": "required"})]
        answers = {}
        for mode in ("on", "off"):
            with Server(BINARY, "--speculate", mode) as server:
                answers[mode] = [a["choices"] for a in together(
                    [lambda b=b: server.post(CHAT, b) for b in bodies])]
                drafted = server.metric("cachalot_draft_tokens_total")
                self.assertEqual(drafted > 0, mode == "on")
                self.assertEqual(server.get("/slots")[0]["speculative"], mode == "on")
        for choices in answers["on"] + answers["off"]:
            for call in choices[0]["message"].get("tool_calls") or []:
                call.pop("id")  # random
        self.assertEqual(answers["on"], answers["off"])
        for choices in answers["on"][::3]:
            self.assertLessEqual(set(json.loads(choices[0]["message"]["content"])["tags"]), {"red", "green"})

    def test_a_json_object(self):
        answer = self.server.post(CHAT, chat("Say it in json", seed=3, max_tokens=400,
                                             temperature=0.7,
                                             response_format={"type": "json_object"}))
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(choice["message"]["content"]), dict)
        self.assertTrue(choice["message"]["content"].startswith("{"))

    def test_a_schema_that_cannot_be_enforced_is_refused(self):
        status, _, data = self.server.call("POST", CHAT, chat("x", response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "string", "pattern": "a(?=b)"}}}))
        self.assertEqual(status, 400)
        self.assertIn("schema.pattern", data.decode())

    def test_conditions_on_strings_and_numbers_hold(self):
        schema = {"type": "object", "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{2,4}-\\d{3}$"},
            "price": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 10, "multipleOf": 0.25},
            "pair": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}],
                     "items": False}},
            "required": ["day", "code", "price", "pair"]}
        bodies = [chat("json", seed=seed, max_tokens=200, response_format={
            "type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
                  for seed in range(8)]
        for answer in together([lambda b=b: self.server.post(CHAT, b) for b in bodies]):
            self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
            value = json.loads(answer["choices"][0]["message"]["content"])
            datetime.date.fromisoformat(value["day"].replace("0000", "2000"))
            self.assertRegex(value["code"], "^[A-Z]{2,4}-[0-9]{3}$")
            self.assertTrue(0.5 <= value["price"] < 10 and value["price"] * 4 % 1 == 0)
            self.assertEqual([type(v) for v in value["pair"]], [bool, int])

    def test_regular_expressions_choices_and_grammars_hold_the_answer(self):
        forms = [({"guided_regex": "(?:ab|c){2,5}"}, r"(?:ab|c){2,5}"),
                 ({"structured_outputs": {"regex": "[0-9]{4}"}}, r"[0-9]{4}"),
                 ({"guided_choice": ["yes", "no"]}, r"yes|no"),
                 ({"structured_outputs": {"choice": ["red", "green"]}}, r"red|green"),
                 ({"grammar": 'root ::= item ("," item)? \n item ::= [a-c]{1,3} "!"'},
                  r"[a-c]{1,3}!(,[a-c]{1,3}!)?")]
        for form, expected in forms:
            for seed in range(3):
                for path, body in ((CHAT, chat("x", seed=seed, max_tokens=60)),
                                   ("/v1/completions", {"prompt": "x", "seed": seed,
                                                        "max_tokens": 60})):
                    choice = self.server.post(path, {**body, **form})["choices"][0]
                    text = choice["text"] if "text" in choice else choice["message"]["content"]
                    self.assertEqual(choice["finish_reason"], "stop")
                    self.assertRegex(text, f"^(?:{expected})$")
        for form, field in (({"guided_regex": "("}, "guided_regex"),
                            ({"grammar": "root ::= root"}, "grammar")):
            status, _, data = self.server.call("POST", CHAT, chat("x", **form))
            self.assertEqual(status, 400)
            self.assertEqual(json.loads(data)["error"]["param"], field)

    def test_a_required_tool_is_called_with_valid_arguments(self):
        tools = [{"type": "function", "function": {
            "name": "weather", "parameters": {"type": "object", "properties": {
                "city": {"type": "string", "enum": ["Bath", "London"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7}},
                "required": ["city", "days"]}}}]
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            answer = self.server.post(CHAT, chat("Weather?", tools=tools, tool_choice=choice,
                                                 max_tokens=300, seed=4,
                                                 parallel_tool_calls=False))
            message = answer["choices"][0]["message"]
            self.assertEqual(answer["choices"][0]["finish_reason"], "tool_calls")
            self.assertEqual(len(message["tool_calls"]), 1)
            call = message["tool_calls"][0]
            self.assertEqual(call["function"]["name"], "weather")
            arguments = json.loads(call["function"]["arguments"])
            self.assertIn(arguments["city"], ("Bath", "London"))
            self.assertTrue(1 <= arguments["days"] <= 7)
            # And the round trip.
            again = self.server.post(CHAT, {
                "messages": [{"role": "user", "content": "Weather?"},
                             {"role": "assistant", "content": "", "tool_calls": message["tool_calls"]},
                             {"role": "tool", "tool_call_id": call["id"], "content": "Rain"}],
                "tools": tools, "max_tokens": 8, "thinking": {"type": "disabled"}})
            self.assertEqual(len(again["choices"]), 1)

    def test_tokenize_and_back(self):
        ids = self.server.post("/tokenize", {"content": "Hello \u00e9"})["tokens"]
        self.assertEqual(self.server.post("/detokenize", {"tokens": ids})["content"],
                         "Hello \u00e9")

        pieces = self.server.post("/tokenize", {"content": "\u4e2d", "with_pieces": True})["tokens"]
        spelled = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"])
                           for p in pieces)
        self.assertEqual(spelled.decode(), "\u4e2d")
        messages = [{"role": "user", "content": "How many?"}]
        template = self.server.post("/apply-template", {"messages": messages})["prompt"]
        self.assertEqual(self.server.post("/tokenize", {"messages": messages})["tokens"],
                         self.server.post("/tokenize", {"content": template})["tokens"])

    def test_what_other_servers_say_of_themselves(self):
        props = self.server.get("/props")
        self.assertEqual(props["total_slots"], 16)
        self.assertEqual(props["default_generation_settings"]["n_ctx"], 8192)
        slots = self.server.get("/slots")
        self.assertEqual([slot["id"] for slot in slots], list(range(16)))
        self.assertEqual(self.server.call("GET", "/slots?fail_on_no_slot=1")[0], 200)
        self.assertEqual(self.server.call("POST", "/slots/0?action=save", {"filename": "x"})[0], 501)
        self.assertIn("version", self.server.get("/version"))
        self.assertEqual(self.server.get("/load")["server_load"], 0)
        self.assertTrue(self.server.get("/user/balance")["is_available"])
        model = self.server.get("/v1/models")["data"][0]
        self.assertEqual(self.server.get("/v1/models/" + model["id"])["max_model_len"], 8192)

    def test_the_time_of_steps_and_masks_is_counted(self):
        self.server.post(CHAT, chat("json", response_format={"type": "json_object"}))
        steps, masks, replies = (self.server.metric(f"cachalot_{name}_seconds_total")
                                 for name in ("step", "mask", "reply"))
        self.assertTrue(0 < masks < steps and replies > 0, (steps, masks, replies))

    def test_count_tokens_equals_the_prompt(self):
        messages = [{"role": "user", "content": "How many?"}]
        counted = self.server.post("/v1/messages/count_tokens", {"model": "m", "messages": messages})
        used = self.server.post("/v1/messages",
                                {"model": "m", "messages": messages, "max_tokens": 1})["usage"]
        self.assertEqual(counted["input_tokens"],
                         used["input_tokens"] + used["cache_read_input_tokens"])

    def test_bad_requests_name_the_field(self):
        cases = [({"messages": 5}, "messages"),
                 (chat("x", temperature="hot"), "temperature"),
                 (chat("x", max_tokens=0), "max_tokens"),
                 (chat("x", logit_bias={"99999999": 1}), "bias"),
                 ({}, "messages")]
        for body, field in cases:
            status, _, data = self.server.call("POST", CHAT, body)
            self.assertEqual(status, 400, body)
            self.assertIn(field, data.decode())
        for body in (b"{", b"[1]", b"\xff\xfe", b"[" * 10000):
            self.assertEqual(self.server.call("POST", CHAT, body)[0], 400)

    def test_a_prompt_longer_than_the_context(self):
        status, _, data = self.server.call("POST", CHAT, chat("word " * 16000))
        self.assertEqual(status, 400)
        self.assertEqual(json.loads(data)["error"]["code"], "context_length_exceeded")

    def test_the_page_is_whole_and_allows_no_foreign_code(self):
        status, headers, page = self.server.call("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        for path in re.findall(rb'(?:src|href)="(/[^"]*)"', page):
            self.assertEqual(self.server.call("GET", path.decode())[0], 200, path)

    def test_unknown_paths_and_methods(self):
        self.assertEqual(self.server.call("GET", "/v1/nothing")[0], 404)
        self.assertEqual(self.server.call("GET", CHAT)[0], 405)
        self.assertEqual(self.server.call("GET", "/v1/models/other")[0], 404)

    def test_bodies_that_a_foreign_page_could_send_are_refused(self):
        body = json.dumps(chat("x", max_tokens=1)).encode()
        form = "application/x-www-form-urlencoded"
        cases = [({}, 200), ({"Content-Type": "Application/JSON; charset=utf-8"}, 200),
                 ({"Content-Type": form}, 200),  # what curl -d sends
                 ({"Content-Type": form, "Origin": "https://evil.example"}, 415),
                 ({"Content-Type": "text/plain"}, 415),
                 ({"Content-Type": "multipart/form-data; boundary=x"}, 415)]
        for headers, expected in cases:
            self.assertEqual(self.server.call("POST", CHAT, body, headers)[0], expected, headers)

    def test_purging_needs_a_key(self):
        self.assertEqual(self.server.call("DELETE", "/v1/cache")[0], 403)


class Limits(unittest.TestCase):
    def test_keys(self):
        with Server(BINARY, "--api-key", "secret-key-1", "--api-key", "other-key-22") as server:
            self.assertEqual(server.call("GET", "/health")[0], 200)
            self.assertEqual(server.call("GET", "/v1/models")[0], 401)
            wrong = server.call("GET", "/v1/models", headers={"Authorization": "Bearer no"})
            self.assertEqual(wrong[0], 401)
            for headers in ({"Authorization": "Bearer secret-key-1"}, {"x-api-key": "other-key-22"}):
                self.assertEqual(server.call("GET", "/v1/models", headers=headers)[0], 200)
            purge = server.call("DELETE", "/v1/cache", headers={"x-api-key": "other-key-22"})
            self.assertEqual(purge[0], 200)

    def test_keys_and_users_are_apart_and_purged_alone(self):
        keys = ("secret-key-1", "other-key-22")
        flags = [flag for key in keys for flag in ("--api-key", key)]
        body = {"prompt": "A text that only one of them asked for. " * 5, "max_tokens": 1}
        with Server(BINARY, *flags) as server:
            def hits(key, user):
                return server.post("/v1/completions", {**body, "user_id": user or None},
                                   {"x-api-key": keys[key]})["usage"]["prompt_cache_hit_tokens"]

            def purge(key, user):
                self.assertEqual(server.call("DELETE", "/v1/cache?user_id=" + user,
                                             headers={"x-api-key": keys[key]})[0], 200)

            users = [(0, "a"), (0, "b"), (0, "1_a"), (0, ""), (1, "a"), (1, "0_a"), (1, "")]
            for key, user in users:
                self.assertEqual(hits(key, user), 0, (key, user))
            for key, user in users:
                self.assertGreater(hits(key, user), 0, (key, user))
            purge(0, "a")
            purge(1, "0%5Fa")
            for key, user in users:
                purged = (key, user) in ((0, "a"), (1, "0_a"))
                self.assertEqual(hits(key, user) == 0, purged, (key, user))

    def test_streamed_experts_show_in_the_metrics(self):
        with Server(BINARY, "--memory", "600M", "--max-context", "512", "--share-reads",
                    "2") as server:
            server.post("/v1/completions", {"prompt": "She", "max_tokens": 4})
            _, _, data = server.call("GET", "/metrics")
            text = data.decode()
            for name in ('cachalot_experts_wanted_total{hit="no",layer="0"}',
                         'cachalot_expert_read_bytes_total{copy="0"}',
                         "cachalot_expert_read_busy_seconds_total",
                         "cachalot_expert_read_queue_seconds_total",
                         'cachalot_expert_wait_seconds_total{layer="0"}'):
                self.assertIn("\n" + name + " ", text)
            self.assertIn("\ncachalot_held_steps_total 0\n", text)  # nobody was running

    def test_what_no_memory_could_hold_is_the_requests_fault(self):
        with Server(BINARY, "--kv-memory", "1500K", "--max-context", "8192") as server:
            status, _, data = server.call("POST", "/v1/completions",
                                          {"prompt": "She", "max_tokens": 8000})
            self.assertEqual(status, 400)
            self.assertIn("--kv-memory", data.decode())
            server.post("/v1/completions", {"prompt": "She", "max_tokens": 4})

    def test_a_full_queue_answers_429(self):
        with Server(BINARY, "--parallel", "1", "--queue", "1") as server:
            connections = []
            for expected in (1, 1):
                connection = server.connect()
                connection.request("POST", "/v1/completions", json.dumps(
                    {"prompt": "She", "max_tokens": 8000, "stream": True,
                     "logit_bias": {"1": -100}}))
                connections.append(connection)
                name = "running" if len(connections) == 1 else "waiting"
                self.assertTrue(server.wait_for("cachalot_requests_" + name, expected))
            status, headers, _ = server.call("POST", "/v1/completions", {"prompt": "x"})
            self.assertEqual(status, 429)
            self.assertIn("Retry-After", headers)
            for connection in connections:
                connection.close()

    def test_the_more_urgent_of_those_that_wait_is_first(self):
        with Server(BINARY, "--parallel", "1") as server:
            order, threads = [], []

            def ask(name, **more):
                server.post("/v1/completions", {"prompt": "She", "max_tokens": 40,
                                                "logit_bias": {"1": -100}, **more})
                order.append(name)

            requests = [("runs", {"max_tokens": 1500}), ("flex", {"service_tier": "flex"}),
                        ("none", {}), ("late", {"priority": 5}), ("soon", {"priority": -5})]
            for i, (name, more) in enumerate(requests):
                threads.append(threading.Thread(target=ask, args=(name,), kwargs=more))
                threads[-1].start()
                what = "running" if i == 0 else "waiting"
                self.assertTrue(server.wait_for("cachalot_requests_" + what, max(1, i)))
            for thread in threads:
                thread.join()
            self.assertEqual(order, ["runs", "soon", "none", "late", "flex"])
            status, _, data = server.call("POST", "/v1/completions", {"priority": 101})
            self.assertEqual((status, json.loads(data)["error"]["param"]), (400, "priority"))

    def test_other_models_are_refused_where_asked_for(self):
        with Server(BINARY, "--strict-model", "--name", "small") as server:
            for model, expected in (("small", 200), ("deepseek-chat", 200), ("other", 400)):
                for path, body in ((CHAT, chat("x", model=model)),
                                   ("/v1/completions", {"prompt": "x", "max_tokens": 1,
                                                        "model": model})):
                    status, _, data = server.call("POST", path, body)
                    self.assertEqual(status, expected)
                    if status == 400:
                        self.assertEqual(json.loads(data)["error"]["param"], "model")

    def test_a_body_larger_than_allowed_is_413(self):
        with Server(BINARY, "--max-body", "4K") as server:
            self.assertEqual(server.call("POST", "/v1/completions", {"prompt": "x " * 4000})[0], 413)
            server.post("/v1/completions", {"prompt": "She", "max_tokens": 1})

    def test_a_signal_ends_streams_properly(self):
        server = Server(BINARY, "--drain", "0")
        events = server.stream("/v1/completions", {"prompt": "She", "max_tokens": 8000,
                                                   "logit_bias": {"1": -100}})
        next(events)
        self.assertEqual(server.end(), 0)
        self.assertTrue(any("error" in event for event in events), "the stream says why it ends")
        server.__exit__()

    def test_running_requests_may_end_first(self):
        server = Server(BINARY)
        events = server.stream("/v1/completions", {"prompt": "She", "max_tokens": 300, "seed": 1})
        next(events)
        self.assertEqual(server.end(), 0)
        last = list(events)[-1]
        self.assertIn(last["choices"][0]["finish_reason"], ("length", "stop"))
        server.__exit__()


if __name__ == "__main__":
    unittest.main()

"""Completions, asked by OpenAI's own client, of real models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.serving.client import Client
from langzoo.serving.server import ModelServer

MODELS = ("bytes", "subwords")
PROMPT = "The value of"
CONTEXT, CAP = 64, 40


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def direct(gateway_server: ModelServer, model: str) -> Iterator[Client]:
    """A client of the model server itself."""
    with Client(gateway_server.grpc_address, model) as client:
        yield client


def streamed(api: openai.OpenAI, **request: Any) -> tuple[str, str | None, list[Any]]:
    """Text, finish reason and parts of a stream of one completion."""
    parts = list(api.completions.create(stream=True, **request))
    choices = [choice for part in parts for choice in part.choices]
    reasons = [choice.finish_reason for choice in choices]
    assert not any(reasons[:-1])
    return "".join(choice.text for choice in choices), reasons[-1], parts


def test_a_completion_is_what_the_signature_writes(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    settings = {"temperature": 0.9, "top_p": 0.8, "seed": 5}
    [expected] = direct.generate([PROMPT], 20, top_k=9, **settings)
    answer = api.completions.create(
        model=model, prompt=PROMPT, max_tokens=20, extra_body={"top_k": 9}, **settings
    )
    [choice] = answer.choices
    assert choice.text == expected.text != ""
    assert choice.finish_reason == expected.finish_reason
    assert (answer.object, answer.model) == ("text_completion", model)
    assert answer.usage.prompt_tokens == expected.prompt_tokens > 0
    assert answer.usage.completion_tokens == expected.new_tokens
    assert answer.usage.total_tokens == expected.prompt_tokens + expected.new_tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"presence_penalty": 1.5, "frequency_penalty": 0.5, "temperature": 0},
        {"repetition_penalty": 1.7, "temperature": 0},
        {"stop": ["no such text"], "temperature": 1},
    ],
)
def test_penalties_and_stops_are_those_of_the_signature(
    api: openai.OpenAI, direct: Client, model: str, changes: dict[str, Any]
) -> None:
    same = {"seed": 5, "temperature": changes["temperature"]}
    [plain] = direct.generate([PROMPT], 30, **same)
    if "stop" in changes:
        letter = next(t for t in plain.tokens[1:] if not t.startswith("<0x"))
        changes = {**changes, "stop": ["no such text", letter]}
    [expected] = direct.generate([PROMPT], 30, seed=5, **changes)
    assert expected.text != plain.text
    answer = api.completions.create(
        model=model, prompt=PROMPT, max_tokens=30, seed=5, extra_body=changes
    )
    assert answer.choices[0].text == expected.text


def test_completions_of_one_prompt_have_the_seeds_that_follow(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    seeds = [2**31 - 1, -(2**31), -(2**31) + 1]  # the last one wraps
    expected = direct.generate([PROMPT] * 3, 8, seed=seeds)
    answer = api.completions.create(
        model=model, prompt=PROMPT, n=3, max_tokens=8, seed=seeds[0]
    )
    assert [choice.text for choice in answer.choices] == [e.text for e in expected]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.prompt_tokens == expected[0].prompt_tokens


def test_a_prompt_is_completed_alike_alone_and_in_a_list(
    api: openai.OpenAI, model: str
) -> None:
    prompts = [PROMPT, "", "naïve €"]
    answer = api.completions.create(model=model, prompt=prompts, n=2, seed=1)
    alone = [
        choice.text
        for prompt in prompts
        for choice in api.completions.create(
            model=model, prompt=prompt, n=2, seed=1
        ).choices
    ]
    assert [choice.text for choice in answer.choices] == alone
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_texts_without_a_seed_differ(api: openai.OpenAI, model: str) -> None:
    asked = {"model": model, "prompt": [PROMPT, PROMPT], "n": 2, "max_tokens": 20}
    choices = [
        *api.completions.create(**asked).choices,
        *api.completions.create(**asked).choices,
    ]
    assert len({choice.text for choice in choices}) == 8


def test_best_of_answers_the_likeliest_a_token(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    candidates = direct.generate([PROMPT] * 4, 6, seed=[3, 4, 5, 6])
    means = {
        c.text: sum(c.log_probabilities) / max(1, len(c.log_probabilities))
        for c in candidates
    }
    answer = api.completions.create(
        model=model, prompt=PROMPT, n=2, best_of=4, max_tokens=6, seed=3
    )
    best = sorted(means, key=means.__getitem__, reverse=True)[:2]
    assert [choice.text for choice in answer.choices] == best
    assert answer.usage.completion_tokens == sum(c.new_tokens for c in candidates)


def test_log_probabilities_of_new_tokens(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    [expected] = direct.generate([PROMPT], 12, seed=2)
    [choice] = api.completions.create(
        model=model, prompt=PROMPT, max_tokens=12, seed=2, logprobs=2
    ).choices
    scores = choice.logprobs
    assert scores.tokens == list(expected.tokens)
    assert scores.token_logprobs == list(expected.log_probabilities)
    for top, token, likeliest in zip(
        scores.top_logprobs, scores.tokens, expected.alternatives, strict=True
    ):
        assert set(top) == {token, *(other.token for other in likeliest[:2])}
    assert len(scores.text_offset) == len(scores.tokens)
    for token, offset in zip(scores.tokens, scores.text_offset, strict=True):
        assert token.startswith("<0x") or choice.text[offset:].startswith(token)


def test_zero_log_probabilities_are_those_of_the_tokens_alone(
    api: openai.OpenAI,
) -> None:
    [choice] = api.completions.create(model="bytes", prompt="", logprobs=0).choices
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.tokens) > 0
    assert choice.logprobs.top_logprobs is None


@pytest.mark.parametrize("max_tokens", [0, 4])
def test_echo_tells_how_likely_the_prompt_is(
    api: openai.OpenAI, direct: Client, model: str, max_tokens: int
) -> None:
    prompt = "naïve 10 €"
    [expected] = direct.token_alternatives([prompt])
    [choice] = api.completions.create(
        model=model, prompt=prompt, echo=True, max_tokens=max_tokens, logprobs=1, seed=1
    ).choices
    scores, count = choice.logprobs, len(expected.tokens) - 1  # without </s>
    assert choice.text.startswith(prompt)
    assert scores.tokens[:count] == list(expected.tokens[:count])
    # Nothing is said of the first token, as in OpenAI's API.
    assert scores.token_logprobs[0] is scores.top_logprobs[0] is None
    assert scores.token_logprobs[1:count] == list(expected.log_probabilities[1:count])
    for top, token, likeliest in zip(
        scores.top_logprobs[1:count],
        expected.tokens[1:],
        expected.alternatives[1:],
        strict=False,
    ):
        assert set(top) == {token, likeliest[0].token}
    assert scores.text_offset[0] == 0
    assert scores.text_offset[:count] == sorted(scores.text_offset[:count])
    assert all(offset >= len(prompt) for offset in scores.text_offset[count:])
    if not max_tokens:
        assert choice.text == prompt
        assert len(scores.tokens) == count


def test_echo_without_log_probabilities(api: openai.OpenAI, model: str) -> None:
    asked = {"model": model, "prompt": PROMPT, "seed": 1}
    [plain] = api.completions.create(**asked).choices
    [echoed] = api.completions.create(**asked, echo=True).choices
    assert echoed.text == PROMPT + plain.text


@pytest.mark.parametrize("continuation", [" is", " €"])
def test_the_way_of_lm_evaluation_harness(
    api: openai.OpenAI, direct: Client, model: str, continuation: str
) -> None:
    # Its `local-completions` sends context and continuation, asks for one token more,
    # and reads the continuation's part of the log-probabilities, that token left out.
    [context] = direct.token_scores([PROMPT])
    [whole] = direct.token_scores([PROMPT + continuation])
    context_length = len(context.tokens) - 1
    [choice] = api.completions.create(
        model=model,
        prompt=[PROMPT + continuation],
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    ).choices
    scores = choice.logprobs
    part = slice(context_length, -1)
    assert scores.token_logprobs[part] == pytest.approx(
        whole.log_probabilities[part], abs=1e-5
    )
    is_greedy = all(
        own == max(top.values())
        for own, top in zip(
            scores.token_logprobs[part], scores.top_logprobs[part], strict=True
        )
    )
    [greedy] = direct.generate([PROMPT], len(whole.tokens), temperature=0.0)
    assert is_greedy == greedy.text.startswith(continuation)


def test_the_end_of_a_text_counts_as_a_token_after_an_echo(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    """Without it, lm-evaluation-harness would leave out a token of the prompt."""
    for seed in range(4000):
        [first] = direct.generate([PROMPT], 1, temperature=2.0, seed=seed)
        if first.finish_reason == "stop":
            break
    [choice] = api.completions.create(
        model=model,
        prompt=PROMPT,
        temperature=2,
        max_tokens=1,
        logprobs=1,
        seed=seed,
        echo=True,
    ).choices
    assert choice.text == PROMPT
    assert choice.finish_reason == "stop"
    [expected] = direct.token_alternatives([PROMPT])
    assert choice.logprobs.tokens == list(expected.tokens)
    assert choice.logprobs.tokens[-1] == "</s>"


def test_beam_search(api: openai.OpenAI, direct: Client, model: str) -> None:
    [expected] = direct.beam_search([PROMPT], 8, num_beams=3, length_penalty=0.5)
    answer = api.completions.create(
        model=model,
        prompt=PROMPT,
        n=2,
        best_of=3,
        max_tokens=8,
        extra_body={"use_beam_search": True, "length_penalty": 0.5},
    )
    texts = [choice.text for choice in answer.choices]
    assert texts == [beam.text for beam in expected[:2]]
    assert answer.usage.completion_tokens == sum(beam.new_tokens for beam in expected)
    assert answer.usage.prompt_tokens > 0


@given(
    seed=st.integers(0, 10**6),
    prompt=st.sampled_from([PROMPT, "", "naïve €", "for x in range(10):\n    "]),
    max_tokens=st.integers(0, CAP - 1),
    stop=st.lists(st.sampled_from(["e", " a", "\n", "th", "x"]), max_size=2),
    presence=st.sampled_from([0.0, 0.0, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_streamed_text_is_the_text_of_one_answer(
    api: openai.OpenAI,
    seed: int,
    prompt: str,
    max_tokens: int,
    stop: list[str],
    presence: float,
) -> None:
    for model in MODELS:
        asked = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "seed": seed,
            "stop": stop,
            "presence_penalty": presence,
            "temperature": 0.8,
            "logprobs": 1,
        }
        answer = api.completions.create(**asked)
        [whole] = answer.choices
        text, reason, parts = streamed(
            api, **asked, stream_options={"include_usage": True}
        )
        assert (text, reason) == (whole.text, whole.finish_reason)
        assert parts[-1].usage == answer.usage
        tokens, offsets = [], []
        for part in parts[:-1]:
            tokens += part.choices[0].logprobs.tokens
            offsets += part.choices[0].logprobs.text_offset
        assert tokens == whole.logprobs.tokens
        assert offsets == whole.logprobs.text_offset


def test_a_stream_comes_in_pieces(api: openai.OpenAI) -> None:
    *_, parts = streamed(api, model="bytes", prompt=PROMPT, max_tokens=30, seed=3)
    assert len(parts) > 3
    assert all(part.id == parts[0].id for part in parts)
    assert all(part.usage is None for part in parts)


def test_a_prompt_that_does_not_fit(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    asked = {"model": model, "prompt": PROMPT * 20, "max_tokens": 30, "seed": 4}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="context length is 64") as e:
            api.completions.create(**asked, stream=stream)
        assert e.value.code == "context_length_exceeded"
    cut = {**asked, "extra_body": {"truncate_prompt_tokens": -1}}
    answer = api.completions.create(**cut)
    [expected] = direct.generate([PROMPT * 20], 30, seed=4)
    assert answer.choices[0].text == expected.text == streamed(api, **cut)[0]
    assert answer.usage.prompt_tokens == CONTEXT - 30
    cut["extra_body"] = {"truncate_prompt_tokens": 5}
    [choice] = api.completions.create(**cut, echo=True, logprobs=0).choices
    [ids] = direct.tokenize([PROMPT * 20])
    [last] = direct.detokenize([ids[-5:]])
    assert choice.text.startswith(last.text)
    assert choice.logprobs.tokens[:5] == list(last.tokens)


def test_token_ids_are_a_prompt(api: openai.OpenAI, direct: Client, model: str) -> None:
    prompt = "naïve 10 €"
    [ids] = direct.tokenize([prompt])
    asked = {"model": model, "seed": 1, "echo": True, "logprobs": 1, "max_tokens": 9}
    texts = api.completions.create(**asked, prompt=[prompt, f"<s>{prompt}"])
    plain, begun = texts.choices
    answer = api.completions.create(**asked, prompt=[[2, *ids], list(ids)])
    alike, bare = answer.choices
    # Who says the start, as lm-evaluation-harness does, is told of what follows it.
    assert begun.text == alike.text == f"<s>{plain.text}"
    assert begun.logprobs.tokens == alike.logprobs.tokens
    assert begun.logprobs.text_offset == alike.logprobs.text_offset
    assert alike.logprobs.tokens == ["<s>", *plain.logprobs.tokens]
    first, *scores = alike.logprobs.token_logprobs
    assert first is None
    assert scores[1:] == pytest.approx(plain.logprobs.token_logprobs[1:], abs=1e-5)
    [expected] = direct.token_scores([prompt])
    assert scores[0] == pytest.approx(expected.log_probabilities[0], abs=1e-5)
    assert alike.logprobs.text_offset[1:3] == [3, 4]
    # Without a start it is another text.
    assert bare.logprobs.tokens[: len(ids)] == plain.logprobs.tokens[: len(ids)]
    assert bare.logprobs.token_logprobs[1] != plain.logprobs.token_logprobs[1]
    assert answer.usage.prompt_tokens == 2 * len(ids) + 1
    [unbegun] = api.completions.create(
        **asked, prompt=prompt, extra_body={"add_special_tokens": False}
    ).choices
    assert unbegun.text == bare.text
    one = {**asked, "prompt": [2, *ids]}
    assert streamed(api, **one)[0] == alike.text


def test_twenty_tokens_are_told_in_each_place(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    [expected] = direct.generate([PROMPT], 6, seed=2, alternatives=20)
    [choice] = api.completions.create(
        model=model, prompt=PROMPT, max_tokens=6, seed=2, logprobs=20
    ).choices
    for top, likeliest in zip(
        choice.logprobs.top_logprobs, expected.alternatives, strict=True
    ):
        assert len(likeliest) == 20
        assert {other.token for other in likeliest} <= top.keys()


def test_any_number_of_stop_strings(
    api: openai.OpenAI, direct: Client, model: str
) -> None:
    for seed in range(5):
        [plain] = direct.generate([PROMPT], 30, seed=seed)
        pieces = [token for token in plain.tokens[2:] if not token.startswith("<0x")]
        stops = ["no", "such", "text", "at all", *pieces[-3:]]
        asked = {"model": model, "prompt": PROMPT, "max_tokens": 30, "seed": seed}
        answer = api.completions.create(**asked, n=2, logprobs=1, stop=stops)
        [choice, _] = answer.choices
        ends = [plain.text.find(stop) for stop in stops if stop in plain.text]
        assert choice.text == plain.text[: min(ends)]
        assert choice.finish_reason == "stop"
        assert streamed(api, **asked, stop=stops)[0] == choice.text
        # Of four the graph makes the same as pieces do of more.
        few = api.completions.create(**asked, n=2, logprobs=1, stop=stops[-4:])
        assert few.usage == answer.usage
        for one, other in zip(few.choices, answer.choices, strict=True):
            assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
            assert one.logprobs.tokens == other.logprobs.tokens
            assert one.logprobs.text_offset == other.logprobs.text_offset


def test_what_changes_no_text_is_taken(api: openai.OpenAI) -> None:
    asked = {"model": "bytes", "prompt": PROMPT, "seed": 1}
    plain = api.completions.create(**asked)
    neutral = {
        "min_p": 0.0,
        "ignore_eos": False,
        "skip_special_tokens": True,
        "stop_token_ids": [],
        "typical_p": 1.0,
        "request_id": "mine",
        "never_heard_of": None,
        "nor_of_this": {},
    }
    answer = api.completions.create(**asked, extra_body=neutral)
    assert answer.choices == plain.choices


def test_an_export_that_tells_nothing_takes_text(
    gateway: Any, telling_server: ModelServer
) -> None:
    with (
        gateway(telling_server.grpc_address, models={"old": "langzoo"}) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api,
    ):
        text, reason, _ = streamed(api, model="old", prompt="ab", max_tokens=3, seed=1)
        assert (text, reason) == (
            api.completions.create(model="old", prompt="ab", max_tokens=3, seed=1)
            .choices[0]
            .text,
            "length",
        )
        [choice] = api.completions.create(
            model="old", prompt="ab", max_tokens=0, echo=True, logprobs=1
        ).choices
        assert choice.logprobs.token_logprobs[0] is None
        for change, message in {
            "prompt": ([1, 2], "text alone"),
            "logprobs": (6, "5 at most"),
            "stop": (["a"] * 5, "4 strings at most"),
            "truncate_prompt_tokens": (3, "does not tell its tokens"),
        }.items():
            value, said = message
            with pytest.raises(openai.BadRequestError, match=said):
                api.completions.create(
                    model="old", prompt="", extra_body={change: value}
                )


def test_several_streams_in_one(api: openai.OpenAI, model: str) -> None:
    asked = {"model": model, "prompt": [PROMPT, "To be"], "n": 2, "seed": 6}
    asked |= {"echo": True, "logprobs": 1, "max_tokens": 9}
    whole = api.completions.create(**asked)
    texts, tokens = [""] * 4, [[] for _ in range(4)]
    for part in api.completions.create(**asked, stream=True):
        for choice in part.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 2**31}, "max_tokens", "less than or equal"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 3, "best_of": 2}, "best_of", "at least 'n'"),
        ({"n": 65}, "n", "more than the 64"),
        ({"prompt": ["a"] * 65}, "prompt", "more than the 64"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": [1, 260]}, "prompt", "token ids are from 0 to 259"),
        ({"prompt": [[1], [-2]]}, "prompt", "token ids are from 0"),
        ({"prompt": ["a", 1]}, "prompt", "a string or a list of token ids"),
        ({"prompt": [True]}, "prompt", "a string or a list of token ids"),
        ({"prompt": 7}, "prompt", "valid (list|array)"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "at least 1"),
        ({"presence_penalty": 2.5}, "presence_penalty", "less than or equal to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "greater than or equal to -2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"suffix": "end"}, "suffix", "cannot fill in"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not supported"),
        ({"stream": True, "best_of": 2}, "best_of", "cannot be streamed"),
        ({"stream_options": {}}, "stream_options", "for 'stream' only"),
        ({"colour": "red"}, "colour", "Unrecognized request argument supplied: colour"),
        ({"min_p": 0.1}, "min_p", "Unrecognized request argument"),
        ({"ignore_eos": True}, "ignore_eos", "Unrecognized request argument"),
        ({"skip_special_tokens": False}, "skip_special_tokens", "Unrecognized"),
        ({"use_beam_search": True, "stop": ["a"] * 5}, "stop", "at most 4"),
        ({"use_beam_search": True, "n": 5}, "best_of", "at most 4 beams"),
        ({"use_beam_search": True, "logprobs": 1}, "logprobs", "Beam search"),
        ({"use_beam_search": True, "stream": True}, "stream", "Beam search"),
        (
            {"use_beam_search": True, "presence_penalty": 1},
            "presence_penalty",
            "beam search",
        ),
    ],
)
def test_a_request_that_is_refused(
    api: openai.OpenAI, change: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        api.completions.create(model="bytes", prompt=PROMPT, extra_body=change)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_null_stands_for_the_default(api: openai.OpenAI) -> None:
    nothing = dict.fromkeys(
        ["suffix", "logit_bias", "stop", "n", "best_of", "temperature", "logprobs"]
    )
    answer = api.completions.create(
        model="bytes", prompt=PROMPT, max_tokens=None, seed=1, extra_body=nothing
    )
    assert answer.usage.completion_tokens <= 16
    assert answer.choices[0].logprobs is None


def test_an_unknown_model(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-4' does not exist") as caught:
        api.completions.create(model="gpt-4", prompt=PROMPT)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

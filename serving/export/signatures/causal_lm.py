"""What an export of a causal language model answers.

`contract` has a table of it; this is what does not fit in there.

`<pad>`, `<unk>` and `<s>` are never proposed: their logits are masked before the
softmax, so the probabilities of `serving_default` are those of real tokens and `</s>`.
`nll` counts `</s>`, and so does `tokens` of `score`. An unknown piece is the one token
`<unk>` in both, and in `token_scores`; `spelling_nll` is what its bytes cost on top of
that, by a fixed code (see `models.tasks.scoring.spelling_nll`), and 0 where nothing is
unknown: `nll + spelling_nll` is the length of a code of the text. The numbers of
`token_alternatives` are those of `token_scores`: of all tokens, of which it shows those
that may be proposed.

`cache_scores` is `token_scores` of a mixture with a cache over the text so far, see
`models.tasks.adaptation.cache`; its defaults are those of `NeuralCache`.

`generate` draws from the 256 likeliest tokens; a prompt keeps its last (context length
- `max_new_tokens`) tokens, and `prompt_tokens` says how many these are, `<s>` not
counted. Where `prompt_ids` has any, these tokens are the prompt, as they are and all of
them counted; what is no id is `<unk>`. No request gets more tokens than the export's
cap, and a setting that means nothing (not a number, out of range) is as good as none.
The penalties are Hugging Face's (over prompt and new tokens) and OpenAI's (over new
tokens), and lower the logits before anything is left out. `stop` has four strings a
row, of any bytes, "" for none: the text ends before the first that is complete (of
several complete at one byte, the longest), whatever the tokens are, and the row is
written no further. `new_tokens` counts the tokens that `text` has a part of, without
the `</s>` that ended it; what is told of each token is "" or 0 behind that.
`finish_reason` is `stop` (at `</s>` or a stop string) or `length`. A row's text depends
on its settings, its seed and its prompt, not on the rest of the batch. The
log-probabilities are the model's own, in nats, among what may be proposed: before
penalties, temperature and cuts. Who goes on piece by piece with one seed says in
`seed_offset` how many tokens of the continuation the prompt ends with: they count for
the penalties as new ones, and the pieces are those of one request (where the tokenizer
cuts the text into the tokens that were drawn).

`beam_search` keeps `num_beams` (at most four) continuations; see `beam_search`.
`log_probability` is the sum over the tokens, `</s>` and those of a stop string among
them, and `score` that over their number ** `length_penalty`. Where there are fewer
beams these are -inf, and the text "".

`embed` reads a text of any length, as `score` does but without `</s>`; where
`token_ids` has any, these, as `prompt_ids` of `generate`. An n-gram model's hidden
states are the log-probabilities of the next token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks.adaptation.cache import CacheInputs, cached_log_probabilities
from ....models.tasks.adaptation.settings import NeuralCache
from ....models.tasks.results import PerToken, Results
from ....models.tasks.scoring import (
    map_logits,
    next_token_logits,
    token_log_probabilities,
)
from .. import contract
from ..beam_search import beam_search, for_beams
from ..document_sums import document_sums, evaluation_sums, total
from ..generation import generate
from ..prompts import Prompts
from ..sampling import Penalties, Sampling
from ..settings import ExportSettings
from ..stop_strings import StopStrings
from ..traced_model import TracedModel
from ..vocabulary import Alternatives, Vocabulary, asked_alternatives, last_tokens
from . import Signatures
from .common import (
    embed_signature,
    generated,
    model_info,
    scored_tokens,
    shown,
    text_of_examples,
    tokens,
    told_beams,
)
from .rows import signature

_NEW_TOKENS = contract.GENERATE.settings["max_new_tokens"].default


def build(
    model: Any,
    *,
    stride: int | None = None,
    max_new_tokens: int | None = None,
    **embed: Any,
) -> Signatures:
    """The signatures of a causal language model.

    Args:
        model: a `langzoo.models.CausalLM`.
        stride: int in [0, context length]. Distance between the windows in which a
            document longer than the context is scored; with 0 a recurrent model's state
            goes on. Defaults to half the context.
        max_new_tokens: int in [1, context length). The most tokens that a request may
            generate. Defaults to half the context.
        **embed: `embed_pooling` and `embed_normalize` of `ExportSettings`.
    """
    given = ExportSettings(score_stride=stride, max_new_tokens=max_new_tokens, **embed)
    stride, cap = given.lengths(int(model.context_length))
    traced = TracedModel(model)
    vocabulary = Vocabulary(
        model.preprocessor.tokenizer, model.backbone.vocabulary_size
    )
    score, token_scores = _scoring(traced, vocabulary, stride)

    @signature(contract.EVALUATE)
    def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = text_of_examples(examples)
        return evaluation_sums(traced, vocabulary, texts, stride)

    functions = {
        "serving_default": _next_tokens(traced, vocabulary),
        "score": score,
        "token_scores": token_scores,
        "cache_scores": _cache_scores(traced, vocabulary, stride),
        **_alternatives(traced, vocabulary, stride),
        "generate": _generate(traced, vocabulary, cap),
        "beam_search": _beam_search(traced, vocabulary, cap),
        **tokens(vocabulary),
        "embed": embed_signature(traced, vocabulary, given),
        "model_info": model_info(traced, vocabulary, cap),
        "evaluate": evaluate,
    }
    options = {"stride": stride, "max_new_tokens": cap}
    options |= given.model_dump(include={"embed_pooling", "embed_normalize"})
    return Signatures(functions, traced.variables, options)


def _next_tokens(model: Any, vocabulary: Vocabulary) -> Callable:
    count = contract.NEXT_TOKENS
    proposed = min(count, sum(vocabulary.proposable))

    @signature(contract.NEXT)
    def next_tokens(text: tf.Tensor) -> dict[str, tf.Tensor]:
        # One place is left free, so that the token proposed fits into the context: the
        # first of them is what `generate` says greedily for one new token.
        sequences = last_tokens(vocabulary.sequences(text), model.context_length - 1)
        logits = vocabulary.mask_unproposable(next_token_logits(model, sequences))
        probability, ids = tf.math.top_k(tf.nn.softmax(logits), proposed)
        missing = [[0, 0], [0, count - proposed]]
        return {
            "token": tf.pad(vocabulary.display(ids), missing, constant_values=""),
            "probability": tf.pad(probability, missing),
        }

    return next_tokens


def _scoring(
    model: Any, vocabulary: Vocabulary, stride: int
) -> tuple[Callable, Callable]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def log_probabilities(text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        documents = vocabulary.documents(text)
        scores = token_log_probabilities(model, documents, stride=stride)
        return documents[:, 1:], scores

    @signature(contract.SCORE)
    def score(text: tf.Tensor) -> dict[str, tf.Tensor]:
        _, scores = log_probabilities(text)
        return document_sums(vocabulary, text, *total(scores))

    @signature(contract.TOKEN_SCORES)
    def token_scores(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return scored_tokens(vocabulary, *log_probabilities(text))

    return score, token_scores


def _cache_scores(model: Any, vocabulary: Vocabulary, stride: int) -> Callable:
    own = {f"cache_{name}": value for name, value in NeuralCache()}

    @signature(contract.CACHE_SCORES, **own)
    def cache_scores(text: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        documents = vocabulary.documents(text)
        cache = CacheInputs(*(settings[f"cache_{n}"] for n in CacheInputs._fields))
        scores = cached_log_probabilities(model, documents, cache, stride=stride)
        return scored_tokens(vocabulary, documents[:, 1:], scores)

    return cache_scores


def _alternatives(
    model: Any, vocabulary: Vocabulary, stride: int
) -> dict[str, Callable]:
    most = vocabulary.most_alternatives

    def likeliest(logits: tf.Tensor, targets: tf.Tensor) -> Results:
        # Of all tokens, as in `token_scores`, though only some are shown.
        normalizer = tf.reduce_logsumexp(logits, axis=-1)
        masked = vocabulary.mask_unproposable(logits)
        values, ids = tf.math.top_k(masked, most)
        target = tf.gather(logits, targets, axis=-1, batch_dims=2)
        return target - normalizer, values - normalizer[..., tf.newaxis], ids

    into = PerToken(
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None, most], tf.float32),
        tf.TensorSpec([None, most], tf.int32),
    )

    @tf.function(
        input_signature=[
            tf.RaggedTensorSpec([None, None], tf.int32, row_splits_dtype=tf.int64)
        ],
        autograph=False,
    )
    def scored(documents: tf.RaggedTensor) -> tuple[tf.RaggedTensor, ...]:
        return map_logits(model, documents, likeliest, into, stride=stride)

    @signature(contract.TOKEN_ALTERNATIVES)
    def token_alternatives(text: tf.Tensor) -> dict[str, tf.Tensor]:
        documents = vocabulary.documents(text)
        scores, values, ids = scored(documents)
        top = Alternatives(values.to_tensor(0.0), ids.to_tensor(0))
        is_there = tf.sequence_mask(scores.row_lengths(), tf.shape(top.ids)[1])
        return {
            **scored_tokens(vocabulary, documents[:, 1:], scores),
            **shown(vocabulary, top, is_there, contract.ALTERNATIVES),
        }

    @signature(contract.ID_ALTERNATIVES)
    def id_alternatives(
        token_ids: tf.Tensor, alternatives: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        scores, values, ids = scored(vocabulary.id_documents(token_ids))
        count = tf.minimum(asked_alternatives(alternatives), most)
        scores, length = scores.to_tensor(0.0), scores.row_lengths()
        # Nested lists of a long text would keep whoever reads them busy.
        flat = [tf.shape(scores)[0], tf.shape(scores)[1] * count]
        values = tf.reshape(values.to_tensor(0.0)[..., :count], flat)
        return {
            "log_probability": scores,
            "length": tf.cast(length, tf.int32),
            "top_id": tf.reshape(ids.to_tensor(0)[..., :count], flat),
            "top_log_probability": values,
        }

    return {
        "token_alternatives": token_alternatives,
        "id_alternatives": id_alternatives,
    }


def _generate(model: Any, vocabulary: Vocabulary, cap: int) -> Callable:
    @signature(contract.GENERATE, max_new_tokens=min(_NEW_TOKENS, cap))
    def generate_text(
        prompt: tf.Tensor,
        max_new_tokens: tf.Tensor,
        stop: tf.Tensor,
        alternatives: tf.Tensor,
        prompt_ids: tf.Tensor,
        **settings: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        prompts = Prompts.of(
            vocabulary,
            prompt,
            prompt_ids,
            max_new_tokens,
            context_length=model.context_length,
            cap=cap,
        )
        asked = asked_alternatives(alternatives)
        new = generate(
            model,
            vocabulary,
            prompts,
            Sampling(*(settings[name] for name in Sampling._fields)),
            Penalties(*(settings[f"{name}_penalty"] for name in Penalties._fields)),
            StopStrings(stop),
            tf.clip_by_value(asked, 1, vocabulary.most_alternatives),
            cap=cap,
        )
        found = generated(vocabulary, new, alternatives)
        return {**found, "prompt_tokens": prompts.read}

    return generate_text


def _beam_search(model: Any, vocabulary: Vocabulary, cap: int) -> Callable:
    @signature(contract.BEAM_SEARCH, max_new_tokens=min(_NEW_TOKENS, cap))
    def search(
        prompt: tf.Tensor,
        max_new_tokens: tf.Tensor,
        num_beams: tf.Tensor,
        length_penalty: tf.Tensor,
        stop: tf.Tensor,
        prompt_ids: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        prompts = Prompts.of(
            vocabulary,
            prompt,
            prompt_ids,
            max_new_tokens,
            context_length=model.context_length,
            cap=cap,
        )
        found = beam_search(
            model, vocabulary, prompts, num_beams, length_penalty, for_beams(stop)
        )
        return told_beams(found)

    return search

"""What an export of a model answers that reads a source and writes a target.

`contract` has a table of it; this is what does not fit in there.

A source is read once a request, as far as the model sees: `unread_tokens` says how many
of its tokens were cut off. All that is written to it, each beam of a search among it,
attends to what was made of it then.

`score`, `token_scores` and `evaluate` are of the target, as those of a causal model are
of a text (see `causal_lm`): `nll` counts `</s>`, and bytes, words and characters are
the target's. A target longer than the context is read in windows, each beside the whole
source. `tokenize`, `detokenize` and all ids are of the target's tokenizer, which need
not be that of the source.

`generate` and `beam_search` write as those of a causal model do, with the same
settings. What stands for the prompt there is `forced_prefix`: `text` begins with it, as
far as the context has room, and penalties count its tokens as a prompt's; of the tokens
and their number it is no part, nor are stop strings sought in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ....models.tasks.pairs import (
    between,
    cut_to,
    ids_of,
    map_targets,
    token_log_probabilities,
)
from ....models.tasks.results import Results
from ....models.tasks.scoring import OUTCOME_SPECS, outcomes
from ....models.tasks.seq_to_seq_lm import Given
from .. import contract
from ..beam_search import beam_search, for_beams
from ..document_sums import document_sums, outcome_sums, told_sums, total
from ..generation import generate
from ..prompts import Prompts
from ..sampling import Penalties, Sampling
from ..settings import ExportSettings
from ..stop_strings import StopStrings
from ..traced_model import TracedPairModel
from ..vocabulary import Vocabulary, asked_alternatives
from . import Signatures
from .common import (
    generated,
    model_info,
    scored_tokens,
    text_of_examples,
    tokens,
    told_beams,
)
from .rows import signature


def build(
    model: Any,
    *,
    stride: int | None = None,
    max_new_tokens: int | None = None,
    **_: Any,
) -> Signatures:
    """The signatures of a model that reads a source.

    Args:
        model: a `langzoo.models.SeqToSeqLM`.
        stride: int in [1, context length]. Distance between the windows in which a
            target longer than the context is scored. Defaults to half the context.
        max_new_tokens: int in [1, context length). The most tokens that a request may
            generate. Defaults to as many as there is room for.
        **_: `embed_pooling` and `embed_normalize` of `ExportSettings`, which have no
            effect.
    """
    context = int(model.context_length)
    most = max_new_tokens or context - len(model.preprocessor.target_start_ids)
    given = ExportSettings(score_stride=stride, max_new_tokens=most)
    stride, cap = given.lengths(context)
    if not stride:
        raise ValueError(
            "serving.score_stride 0 is for models of task causal_lm: give at least 1"
        )
    traced = TracedPairModel(model)
    vocabulary = Vocabulary(
        model.preprocessor.tokenizer, model.backbone.vocabulary_size
    )
    writing = _Writing(traced, vocabulary, cap)
    scoring = _Scoring(traced, vocabulary, stride)
    source_context = {"source_context_length": int(model.source_context_length)}
    functions = {
        "serving_default": writing.likeliest(),
        "score": scoring.score(),
        "token_scores": scoring.token_scores(),
        "generate": writing.generate(),
        "beam_search": writing.beam_search(),
        **tokens(vocabulary),
        "model_info": model_info(
            traced, vocabulary, cap, contract.SOURCE_INFO, **source_context
        ),
        "evaluate": scoring.evaluate(),
    }
    options = {"stride": stride, "max_new_tokens": cap, **source_context}
    return Signatures(functions, traced.variables, options)


class _Scoring:
    """How likely targets are.

    Args:
        model: traced.
        vocabulary: of the target.
        stride: between windows of a long target.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, stride: int) -> None:
        self._model, self._vocabulary, self._stride = model, vocabulary, stride
        spec = tf.TensorSpec([None], tf.string)
        self._log_probabilities = tf.function(
            self._scored, input_signature=[spec, spec], autograph=False
        )

    def score(self) -> Callable:
        """The signature `score`."""

        @signature(contract.SCORE_TARGET)
        def score(text: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
            _, scores = self._log_probabilities(text, target)
            return document_sums(self._vocabulary, target, *total(scores))

        return score

    def token_scores(self) -> Callable:
        """The signature `token_scores`."""

        @signature(contract.TARGET_TOKEN_SCORES)
        def token_scores(text: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
            scored = self._log_probabilities(text, target)
            return scored_tokens(self._vocabulary, *scored)

        return token_scores

    def evaluate(self) -> Callable:
        """The signature `evaluate`."""
        preprocessor = self._model.preprocessor

        @signature(contract.EVALUATE_TARGET)
        def evaluate(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            target = text_of_examples(examples, "target")
            sources = text_of_examples(examples)
            source_ids = ids_of(preprocessor.source_tokenizer, sources)
            framed = preprocessor.target_ids(target)
            sums, lengths = self._outcomes(
                preprocessor.framed_sources(source_ids), framed
            )
            is_cut = preprocessor.is_cut(source_ids)
            return {
                **told_sums(self._vocabulary, target, framed, sums, lengths),
                "cut_sources": tf.cast(is_cut, tf.int64),
            }

        return evaluate

    def _scored(
        self, text: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """The tokens of targets, `</s>` among them, and their log-probabilities."""
        preprocessor = self._model.preprocessor
        framed = preprocessor.target_ids(target)
        scores = token_log_probabilities(
            *(self._model, preprocessor.source_ids(text), framed), stride=self._stride
        )
        return framed[:, len(preprocessor.target_start_ids) :], scores

    def _outcomes(
        self, sources: tf.RaggedTensor, targets: tf.RaggedTensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Sums of how the tokens of framed targets are predicted, and their numbers."""

        def told(inputs: Any, following: tf.Tensor) -> Results:
            logits = self._model(inputs, training=False)  # [c, w, v]
            return outcomes(tf.cast(logits, tf.float32), following)

        parts = map_targets(
            *(self._model, sources, targets, told, *OUTCOME_SPECS), stride=self._stride
        )
        results = tuple(part.flat_values for part in parts)
        rows, count = parts[0].value_rowids(), parts[0].nrows()
        return outcome_sums(results, rows, count), parts[0].row_lengths()


class _Writing:
    """What is written to sources.

    Args:
        model: traced.
        vocabulary: of the target.
        cap: the most tokens that a row gets.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, cap: int) -> None:
        self._model, self._vocabulary, self._cap = model, vocabulary, cap

    def likeliest(self) -> Callable:
        """The signature `serving_default`."""
        settings = contract.GENERATE_TARGET.settings
        greedy = {name: settings[name].default for name in _of_the_loop()}
        greedy |= {"temperature": 0.0, "seed": 0}

        @signature(contract.WRITE_TARGET)
        def likeliest(text: tf.Tensor) -> dict[str, tf.Tensor]:
            model, _ = self._given(text)
            rows = tf.shape(text)[0]
            prompts = self._prompts(tf.fill([rows], ""), tf.fill([rows], self._cap))
            new = generate(
                *(model, self._vocabulary, prompts),
                *_loop_of({k: tf.fill([rows], v) for k, v in greedy.items()}),
                StopStrings(tf.fill([rows, contract.MAX_STOPS], "")),
                tf.constant(1),
                cap=self._cap,
            )
            found = generated(self._vocabulary, new)
            names = ("new_tokens", "finish_reason")
            return {"target": new.text, **{name: found[name] for name in names}}

        return likeliest

    def generate(self) -> Callable:
        """The signature `generate`."""

        @signature(contract.GENERATE_TARGET, max_new_tokens=self._cap)
        def generate_target(
            prompt: tf.Tensor,
            max_new_tokens: tf.Tensor,
            stop: tf.Tensor,
            alternatives: tf.Tensor,
            forced_prefix: tf.Tensor,
            **settings: tf.Tensor,
        ) -> dict[str, tf.Tensor]:
            model, told = self._given(prompt)
            asked = asked_alternatives(alternatives)
            new = generate(
                *(model, self._vocabulary),
                self._prompts(forced_prefix, max_new_tokens),
                *_loop_of(settings),
                StopStrings(stop),
                tf.clip_by_value(asked, 1, self._vocabulary.most_alternatives),
                cap=self._cap,
            )
            found = generated(self._vocabulary, new, alternatives)
            return {**found, **told, "text": _behind(forced_prefix, new.text)}

        return generate_target

    def beam_search(self) -> Callable:
        """The signature `beam_search`."""

        @signature(contract.BEAM_SEARCH_TARGET, max_new_tokens=self._cap)
        def search(
            prompt: tf.Tensor,
            max_new_tokens: tf.Tensor,
            num_beams: tf.Tensor,
            length_penalty: tf.Tensor,
            stop: tf.Tensor,
            forced_prefix: tf.Tensor,
        ) -> dict[str, tf.Tensor]:
            model, _ = self._given(prompt)
            found = beam_search(
                *(model, self._vocabulary),
                self._prompts(forced_prefix, max_new_tokens),
                *(num_beams, length_penalty, for_beams(stop)),
            )
            is_there = found.log_probability > float("-inf")
            text = _behind(forced_prefix[:, tf.newaxis], found.text)
            found = found._replace(text=tf.where(is_there, text, ""))
            return told_beams(found)

        return search

    def _given(self, text: tf.Tensor) -> tuple[Given, dict[str, tf.Tensor]]:
        """The model, its sources read, and how much of them was."""
        preprocessor = self._model.preprocessor
        ids = ids_of(preprocessor.source_tokenizer, text)
        framed = preprocessor.framed_sources(ids)
        memory = self._model.encode(*preprocessor.source_inputs(framed).values())
        before = len(preprocessor.source_start_ids)
        read = framed.row_lengths() - before
        unread = ids.row_lengths() + 1 - read
        return Given(self._model, memory), {
            "prompt_tokens": tf.cast(read, tf.int32),
            "unread_tokens": tf.cast(unread, tf.int32),
        }

    def _prompts(self, prefix: tf.Tensor, max_new_tokens: tf.Tensor) -> Prompts:
        """What the targets begin with, and how far they may go."""
        context = int(self._model.context_length)
        ids = ids_of(self._vocabulary.tokenizer, prefix)
        start = self._model.preprocessor.target_start_ids
        begun = cut_to(between(start, ids, ()), context)
        lengths = tf.cast(begun.row_lengths(), tf.int32)
        most = tf.clip_by_value(max_new_tokens, 0, self._cap)
        limits = tf.minimum(lengths + most, context)
        return Prompts.until(limits, self._vocabulary, begun, lengths - len(start))


def _of_the_loop() -> list[str]:
    """The settings that sampling and penalties are made of."""
    return [*Sampling._fields, *(f"{name}_penalty" for name in Penalties._fields)]


def _loop_of(settings: dict[str, tf.Tensor]) -> tuple[Sampling, Penalties]:
    return (
        Sampling(*(settings[name] for name in Sampling._fields)),
        Penalties(*(settings[f"{name}_penalty"] for name in Penalties._fields)),
    )


def _behind(prefix: tf.Tensor, text: tf.Tensor) -> tf.Tensor:
    """Texts behind what they were to begin with, valid UTF-8."""
    prefix = tf.strings.unicode_transcode(prefix, "UTF-8", "UTF-8", errors="replace")
    return prefix + text

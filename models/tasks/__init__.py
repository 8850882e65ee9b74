"""What models learn to do: tasks on any backbone.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from .task import Task

CAUSAL_LM = Task(
    name="causal_lm",
    model="langzoo.models.tasks.causal_lm:CausalLM",
    metric="bits_per_byte",
    unit="bits",
    beside=("perplexity", "token_accuracy"),
    needs="predicts_next",
    hub="text-generation",
    model_noun="A causal language model",
    intended_use="To continue and to score text of the kind that it was trained on. It "
    "has learned which tokens follow one another in that text and nothing else: it "
    "follows no instructions, and what it writes may be wrong, offensive, or words of "
    "its training data. It is not meant for decisions about people.",
    command='langzoo generate "Some text" --max-new-tokens 20',
)

MASKED_LM = Task(
    name="masked_lm",
    model="langzoo.models.tasks.masked_lm:MaskedLM",
    metric="nats_per_masked_token",
    unit="nats",
    is_of_tokens=True,
    beside=("masked_perplexity", "masked_accuracy"),
    needs="fills_gaps",
    hub="fill-mask",
    model_noun="A masked language model",
    intended_use="To fill gaps in text of the kind that it was trained on, to say how "
    "well its words fit each other, to turn it into vectors, and to learn other tasks "
    "from. It knows which tokens stand among which others and nothing else: what it "
    "fills in may be wrong or offensive. It is not meant for decisions about people.",
    command='langzoo fill "Some [MASK] text"',
)

TEXT_CLASSIFIER = Task(
    name="text_classifier",
    model="langzoo.models.tasks.text_classifier:TextClassifier",
    metric="cross_entropy",
    unit="nats",
    beside=("accuracy", "macro_f1"),
    needs="has_hidden_states",
    target="label",
    counts="texts",
    learns_from=("label",),
    hub="text-classification",
    model_noun="A text classifier",
    intended_use="To say which of the labels that it was trained on fits a text of the "
    "kind that it was trained on. Of any text it names some label, also where none "
    "fits, and what it says of whom may be as unfair as its training data. It is not "
    "meant for decisions about people.",
    command='langzoo classify "Some text"',
)

TOKEN_CLASSIFIER = Task(
    name="token_classifier",
    model="langzoo.models.tasks.token_classifier:TokenClassifier",
    metric="nats_per_tag",
    unit="nats",
    beside=("span_f1", "tag_accuracy"),
    needs="has_hidden_states",
    target="tag",
    learns_from=("tag",),
    hub="token-classification",
    model_noun="A tagger of words",
    intended_use="To say which of the tags that it was trained on each word of a text "
    "has, in text of the kind that it was trained on. Every word gets some tag, also "
    "where none fits, and whom it finds or misses may be as unfair as its training "
    "data. It is not meant for decisions about people.",
    command='langzoo tag "Some text"',
)

SEQ_TO_SEQ_LM = Task(
    name="seq_to_seq_lm",
    model="langzoo.models.tasks.seq_to_seq_lm:SeqToSeqLM",
    metric="target_bits_per_byte",
    unit="bits",
    beside=("target_perplexity", "target_token_accuracy"),
    needs="reads_a_source",
    learns_from=("target",),
    hub="text2text-generation",
    model_noun="A model that writes a text to another one",
    intended_use="To write what belongs to a text, such as its translation or summary, "
    "where it is of the kind that it was trained on, and to say how likely a given one "
    "is. It has learned that from its examples and nothing else: what it writes may "
    "leave out, add or turn round what the text says. It is not meant for decisions "
    "about people.",
    command='langzoo translate "Some text"',
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(CAUSAL_LM, MASKED_LM, TEXT_CLASSIFIER, TOKEN_CLASSIFIER),
        SEQ_TO_SEQ_LM,
    )
}
"""The tasks, by the name used in configurations."""

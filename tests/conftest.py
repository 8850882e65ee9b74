"""What every test needs before TensorFlow is imported, and presets of KerasHub."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import pydoc_data.topics
import sys
import tempfile

import psutil
import pytest

# Read by TensorFlow when it is imported: warnings and errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Libraries leave files in the temporary folder; what processes of a test leave is in
# here, too. The processes of pytest-xdist have theirs in that of the one above them.
_scratch = tempfile.TemporaryDirectory(prefix="langzoo-tests-")
os.environ["TMPDIR"] = tempfile.tempdir = _scratch.name

# Keras reads the user's ~/.keras/keras.json otherwise, whose settings change results.
os.environ["KERAS_HOME"] = os.path.join(_scratch.name, "keras")

# Beam and TFX read flags from here, and pytest has read its own.
del sys.argv[1:]

import langzoo  # noqa: E402, F401  (it sets what Keras and TensorFlow read)

# Imports take half of their time without a collection of garbage.
gc.disable()


def pytest_collection_finish():
    """Leaves what imports have made out of collections, which are rare."""
    if "tensorflow" in sys.modules:
        from hurried import hurry

        hurry()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def _resident():
    return psutil.Process().memory_info().rss


_held = 0  # bytes, when garbage was collected last


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    """Collects what has become much, of which the collector knows little.

    It counts objects of Python, and a few of an export's hold 100 MB of TensorFlow's.
    """
    global _held
    yield
    if _resident() > _held + 300e6:
        import tensorflow as tf

        # Of datasets that Keras has made of texts, which keep their models for ever.
        tf.compat.v1.get_default_graph()._py_funcs_used_in_graph = []
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        _held = _resident()


FIRST = ("pipelines", "docs", "components", "serving")


def pytest_collection_modifyitems(items):
    """Begins with what takes longest, so that at the end nothing long is waited for."""

    def place(item):
        folder = item.nodeid.split("/")[1]
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=place)


def pytest_xdist_make_scheduler(config, log):
    """Keeps in one process what shares fixtures: a module, pipelines, the gateway.

    Of the pipelines' tests some have a pipeline of their own. They are begun in their
    order.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    refused = ("test_keras_hub.py", "test_search.py", "test_techniques.py")

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.split("::")[0]
            folder, _, name = module.rpartition("/")
            if folder == "tests/pipelines/local" and name in refused:
                return "refused"
            if name == "test_beam_runners.py":
                return module
            shared = ("tests/pipelines/", "tests/serving/gateway/")
            return next((name for name in shared if name in module), module)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def own_family(tmp_path_factory):
    """What names a family that is not one of ours, in a package on the path."""
    import own_family

    folder = tmp_path_factory.mktemp("own")
    own_family.write(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        # For processes that a test starts.
        patched.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield own_family.FAMILY


@pytest.fixture(scope="session")
def topics() -> list[str]:
    """Real text: some of Python's own documentation."""
    return [text for _, text in sorted(pydoc_data.topics.topics.items())[:30]]


@pytest.fixture(scope="session")
def llama_preset(topics, tmp_path_factory) -> str:
    """Folder of a tiny Llama of KerasHub with drawn weights and SentencePiece."""
    import keras_hub
    import sentencepiece

    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in topics for line in text.splitlines()),
        model_writer=proto,
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        minloglevel=2,
    )
    tokenizer = keras_hub.models.LlamaTokenizer(proto.getvalue())
    size = tokenizer.vocabulary_size()
    model = keras_hub.models.LlamaCausalLM(
        keras_hub.models.LlamaBackbone(size, 2, 4, 16, 32, 2),
        keras_hub.models.LlamaCausalLMPreprocessor(tokenizer),
    )
    return _saved(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def byte_pairs(topics):
    """Trains a byte-pair vocabulary with the Hugging Face package; gives its model."""
    import tokenizers

    def train(pre_tokenizer):
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = pre_tokenizer
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(topics, trainer)
        content = json.loads(model.to_str())["model"]
        merges = [" ".join(merge) for merge in content["merges"]]
        return model, content["vocab"], merges

    return train


@pytest.fixture(scope="session")
def gpt2_preset(byte_pairs, tmp_path_factory) -> str:
    """Folder of a tiny GPT-2 of KerasHub with drawn weights and byte pairs."""
    import keras_hub
    import tokenizers

    words = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    _, vocabulary, merges = byte_pairs(words)
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary, merges)
    backbone = keras_hub.models.GPT2Backbone(
        len(vocabulary), 2, 4, 16, 32, max_sequence_length=48
    )
    model = keras_hub.models.GPT2CausalLM(
        backbone, keras_hub.models.GPT2CausalLMPreprocessor(tokenizer)
    )
    return _saved(model, tmp_path_factory.mktemp("gpt2"))


def _saved(model, folder) -> str:
    """Draws weights, so that every token has another probability, and saves them."""
    import numpy as np

    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.3, size=weight.shape))
    model.save_to_preset(str(folder))
    return str(folder)

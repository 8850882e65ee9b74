"""How a session rewrites the graphs that it runs."""

import langzoo  # noqa: F401  (sets the environment, so it comes first)
from langzoo.serving.server.session import _sooner_run
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig


def test_what_brings_nothing_is_left_out_before_a_first_run():
    given = config_pb2.ConfigProto(intra_op_parallelism_threads=3)
    for config in (_sooner_run(None), _sooner_run(given)):
        assert config.graph_options.rewrite_options.disable_tfg_optimizer
    assert config.intra_op_parallelism_threads == 3
    assert given == config_pb2.ConfigProto(intra_op_parallelism_threads=3)


def test_what_is_said_of_rewriting_holds():
    given = config_pb2.ConfigProto()
    given.graph_options.rewrite_options.remapping = RewriterConfig.OFF
    assert _sooner_run(given) == given

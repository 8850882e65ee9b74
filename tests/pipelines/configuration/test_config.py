"""The configuration: what is accepted, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from langzoo.components.text_example_gen.settings import TARGET_FIELDS, SourceSettings
from langzoo.models import ByteTokenizer, build_causal_lm
from langzoo.models.families import family_of, presets
from langzoo.models.tasks import TASKS
from langzoo.pipelines.configuration import loading

MASKED = ["task=masked_lm", "model={family: bert}", "gate={}"]


def test_the_demo_configuration_resolves_every_default():
    resolved = yaml.safe_load(loading.load().to_yaml())
    assert resolved["tokenizer"]["sample_bytes"] == 10_000_000
    assert resolved["model"]["family"] == "lstm"
    assert resolved["model"]["hidden_dim"] == 256


def test_a_model_learns_to_go_on_with_a_text_where_nothing_is_said():
    assert loading.load().task == "causal_lm"


@pytest.mark.parametrize("settings", [["model.family=lstm"], MASKED])
def test_the_resolved_configuration_reads_back_as_itself(tmp_path, settings):
    path = tmp_path / "resolved.yaml"
    original = loading.load(settings=[*settings, "trainer.steps=7"])
    path.write_text(original.to_yaml())
    assert loading.load(path) == original


@pytest.mark.parametrize("family", ["transformer", "lstm", "gated_conv", "tcn"])
def test_every_family_can_stand_in_the_demo(family):
    loaded = loading.load(settings=[f"model.family={family}"])
    assert loaded.model.family == family


def test_a_preset_stands_for_its_family_and_hyperparameters():
    setting = "model={preset: gpt2_tiny, num_layers: 2}"
    model = loading.load(settings=[setting]).model
    assert (model.family, model.context_length) == ("transformer", 128)
    assert (model.positions, model.num_layers) == ("learned", 2)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_can_stand_in_the_demo(name):
    setting = f"model={{preset: {name}}}"
    preset = presets.PRESETS[name]
    if preset.context_length <= 64:
        setting = f"model={{preset: {name}, context_length: 65}}"
    can = family_of(preset.family).can
    task = next(name for name, task in TASKS.items() if can(task))
    settings = [setting, "gate={}", f"task={task}"]
    for feature in TASKS[task].learns_from:
        settings.append(f"corpus.{TARGET_FIELDS[feature]}=kind")
    assert loading.load(settings=settings).model.family == preset.family


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task=masked_lm"], "task masked_lm is not for models of family lstm, which"),
        (["model={family: bert}"], "can learn masked_lm"),
        (
            ["task=masked_lm", "model={family: bert}"],
            "gate.max_bits_per_byte is of task causal_lm, and the task is masked_lm: "
            "give gate.max_nats_per_masked_token",
        ),
        (["trainer.masking={share: 0.3}"], "trainer.masking is of task masked_lm"),
        (
            [*MASKED[:2], "gate={rules: [{metric: masked_accuracy, against: ngram}]}"],
            "n-grams cannot learn task masked_lm",
        ),
        (
            [*MASKED[:2], "gate={rules: [{metric: bits_per_byte, max: 2}]}"],
            "bits_per_byte is not measured of models of task masked_lm, only nats",
        ),
        (
            [*MASKED[:2], "gate={adapt: {cache: {}}}"],
            "gate.adapt.cache is not for models of",
        ),
        ([*MASKED, "serving.max_new_tokens=8"], "masked_lm do not write texts"),
        (
            [*MASKED, "watch.sample_tokens=8", "trainer.eval_every_steps=5"],
            "models of task masked_lm do not write texts",
        ),
    ],
)
def test_what_is_of_another_task_is_refused(settings, said):
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(settings=settings)


@pytest.mark.parametrize("preset", ["gpt2_base_en", "hf://author/model"])
def test_a_preset_of_keras_hub_is_not_one_of_ours(preset, tmp_path):
    settings = [
        f"model={{family: keras_hub, preset: '{preset}', pretrained: true}}",
        "tokenizer.type=preset",
    ]
    loaded = loading.load(settings=settings)
    assert loaded.model.preset == preset
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml())
    assert loading.load(tmp_path / "resolved.yaml") == loaded


def test_a_context_longer_than_the_positions_of_a_preset_is_refused(gpt2_preset):
    def load(**model):
        model = {"family": "keras_hub", "preset": gpt2_preset, **model}
        return loading.load(
            settings=[f"model={json.dumps(model)}", "tokenizer.type=preset"]
        )

    assert load(context_length=48, pretrained=True).model.context_length == 48
    assert load(context_length=49).model.context_length == 49
    with pytest.raises(loading.ConfigError) as raised:
        load(context_length=49, pretrained=True)
    said = "model.context_length 49 must be at most the 48 positions of the preset"
    assert said in str(raised.value)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_holds_no_preset_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    model = json.dumps({"family": "keras_hub", "preset": str(tmp_path)})
    with pytest.raises(
        loading.ConfigError, match="is no folder with a KerasHub preset"
    ):
        loading.load(settings=[f"model={model}"])


def test_settings_replace_keys_of_the_file():
    loaded = loading.load(
        settings=["trainer.learning_rate=5e-4", "corpus.path=texts/*.txt"]
    )
    assert loaded.trainer.learning_rate == 5e-4
    assert loaded.corpus.path == "texts/*.txt"


def test_the_folders_of_a_root_in_a_store_have_one_slash_between_them():
    loaded = loading.load(settings=["name=x", "root=gs://bucket/"])
    assert loaded.checkpoint_root == "gs://bucket/x/checkpoints"
    assert loaded.push_folder == "gs://bucket/x/serving"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trainer.stepz=3", "unknown key trainer.stepz: did you mean steps?"),
        ("model.num_layer=3", "unknown key model.num_layer: did you mean num_layers?"),
        ("task=translate", "task: 'translate' is not known: known are causal_lm"),
        ("colour=red", "unknown key colour: known are name, root, corpus"),
        ("trainer.steps=-1", "trainer.steps: -1 cannot be"),
        ("trainer.steps=many", "trainer.steps: 'many' cannot be"),
        ("trainer.steps=true", "trainer.steps: True cannot be"),
        ("trainer.packing=worst_fit", "trainer.packing: 'worst_fit' cannot be"),
        (
            "trainer.augmentation.span_lenght=2",
            "trainer.augmentation.span_lenght: did you mean span_length?",
        ),
        (
            "trainer.augmentation.token_dropout=1",
            "trainer.augmentation.token_dropout: 1 cannot be",
        ),
        (
            "kubeflow.trainer.acelerator=x",
            "kubeflow.trainer.acelerator: did you mean accelerator?",
        ),
        ("kubeflow.volumes={models: models}", "'models' must be an absolute path"),
        ("corpus.eval_fraction=0.9", "less than or equal to 0.5"),
        ("corpus.format=xml", "corpus.format: 'xml' cannot be"),
        ("corpus.fields={text: body}", "'text' cannot be the name of a feature"),
        ("corpus.fields={token_ids: x}", "'token_ids' cannot be the name of a feature"),
        (
            "cleaning.duplicate_fields=[label]",
            "no field 'label': corpus.fields has none",
        ),
        ("corpus.fields={length: length}", "may be called so, as in {label: length}"),
        ("corpus.sources=[{path: a, wait: 2}]", "sources.0.wait: did you mean weight?"),
        ("corpus.sources=[{weight: 2}]", "the key corpus.sources.0.path is missing"),
        ("corpus.sources=[{path: a, weight: 0}]", "corpus.sources.0.weight: 0 cannot"),
        (
            "corpus={path: a, sources: [{path: b}]}",
            "corpus.path 'a' and corpus.sources: give one of them",
        ),
        ("model.family=hmm", "model.family: 'hmm' is not known: it is 'transformer'"),
        ("model.preset=lstm_tiny", "either family 'lstm' or preset"),
        ("model={preset: lstm_tinny}", "did you mean lstm_tiny?"),
        (
            "model={family: transformer, num_key_value_heads: 3}",
            "must be a multiple of num_key_value_heads 3",
        ),
        (
            "model={family: transformer, hidden_dim: 30}",
            "must be a multiple of twice num_heads",
        ),
        ("serving.max_new_tokens=999", "must be below model.context_length 128"),
        ("name=Not a name", "name: 'Not a name' cannot be"),
        ("tokenizer.type=preset", "it needs model.family keras_hub, or weights"),
        ("model={initial_weights: /absent}", "'/absent' is neither the folder of a"),
        ("model.initial_weights=3", "model.initial_weights: 3 cannot be"),
        ("trainer.optimizer=newton", "trainer.optimizer: 'newton' cannot be"),
        (
            "trainer={optimizer: sgd, beta_2: 0.9}",
            "trainer.beta_2 is a setting of trainer.optimizer adamw or adam or lion "
            "or muon or schedule_free_adamw, which is sgd",
        ),
        ("trainer.momentum=0.5", "of trainer.optimizer sgd, which is adamw"),
        (
            "trainer.averaging_patience=3",
            "of trainer.optimizer nt_asgd, which is adamw",
        ),
        ("trainer.decay_every_steps=3", "of trainer.schedule step, which is cosine"),
        ("trainer.decay_share=0.3", "of trainer.schedule wsd, which is cosine"),
        ("trainer={repack: true, packing: lines}", "repack needs trainer.packing cont"),
        ("trainer.decay_factor=0.1", "trainer.schedule step or plateau, which is cos"),
        ("trainer.plateau_patience=3", "of trainer.schedule plateau, which is cosine"),
        (
            "trainer.schedule=step",
            "trainer.schedule step needs trainer.decay_every_steps",
        ),
        (
            "trainer.schedule=plateau",
            "trainer.schedule plateau needs trainer.eval_every_steps",
        ),
        (
            "trainer.optimizer=nt_asgd",
            "trainer.optimizer nt_asgd needs trainer.eval_every_steps",
        ),
        (
            "trainer.early_stopping_patience=3",
            "trainer.early_stopping_patience needs trainer.eval_every_steps",
        ),
        (
            "trainer={optimizer: nt_asgd, eval_every_steps: 5, ema_momentum: 0.9}",
            "both average the weights: give one of them",
        ),
        ("trainer.precision=float8", "trainer.precision: 'float8' cannot be"),
        ("trainer.label_smoothing=1", "trainer.label_smoothing: 1 cannot be"),
        ("trainer.freeze=norm", "trainer.freeze: 'norm' cannot be"),
        ("trainer.layer_rates={x: 0}", "trainer.layer_rates.x: 0 cannot be"),
        (
            "trainer={unfreeze: {x: 9}, optimizer: schedule_free_adamw}",
            "trainer.layer_rates and trainer.unfreeze need another",
        ),
        ("watch.tensorbord=true", "watch.tensorbord: did you mean tensorboard?"),
        ("watch={tensorboard: false, graph: true}", "graph needs watch.tensorboard tr"),
        ("watch.profile_steps=[3]", "watch.profile_steps: [3] cannot be"),
        ("watch.profile_steps=[9, 5]", "[9, 5] must be the first step and the last"),
        ("watch.profile_steps=[9, 5000]", "ends at 5000, after the last of the "),
        ("watch.sample_tokens=9", "watch.sample_tokens needs trainer.eval_every_step"),
        ("tokenizer.type=file", "path and tokenizer.type file need each other"),
        ("tokenizer.path=/", "need each other: type is bpe, path is /"),
        ("tokenizer={type: file, path: /no}", "tokenizer.path '/no' does not exist"),
        (
            "tokenizer={type: word_piece, vocabulary_size: 400}",
            "tokenizer.vocabulary_size 400 must be at least 516 with type word_piece",
        ),
        ("model={family: keras_hub}", "the key model.preset is missing"),
        (
            "gate.rules=[{metric: correctness, min: 0.1}]",
            "there is no metric 'correctness': it is one of bits_per_byte, ",
        ),
        (
            "gate.rules=[{metric: perplexity, maxx: 3}]",
            "rules.0.maxx: did you mean max?",
        ),
        ("gate.rules=[{metric: perplexity, max: .nan}]", "rules.0.max: nan cannot be"),
        (
            "gate.rules=[{metric: perplexity}]",
            "perplexity: a rule has min, max or both,",
        ),
        (
            "gate.rules=[{metric: perplexity, max: 9, against: ngram}]",
            "a rule has min, max or both, or against: last_blessed or ngram",
        ),
        (
            "gate.rules=[{metric: perplexity, min: 9, max: 8}]",
            "gate.rules, perplexity: min 9 is above max 8",
        ),
        (
            "gate.rules=[{metric: perplexity, max: 9, margin: 1}]",
            "margin goes with against, not with min or max",
        ),
        (
            "gate.rules=[{metric: perplexity, max: 9, slice: news}]",
            "slice 'news' must be overall or FEATURE=VALUE",
        ),
        (
            "gate.rules=[{metric: perplexity, max: 9, slice: source=news}]",
            "there is no feature 'source' to slice by: known are length; corpus.fields",
        ),
        (
            "gate.rules=[{metric: perplexity, max: 9, slice: length=7}]",
            "length is one of 0-255, 256-1023, 1024-4095, 4096+ (bytes)",
        ),
        (
            "gate.rules=[{metric: latency_ms, max: 9, slice: length=0-255}]",
            "latency_ms: it is of the whole model, and has no slices",
        ),
        (
            "gate.rules=[{metric: size_mb, max: 9, significant: true}]",
            "size_mb: it has no interval, and cannot be significant",
        ),
        (
            "gate.rules=[{metric: noise_ratio, against: ngram}]",
            "noise_ratio: it is measured of the candidate only: give min, max",
        ),
        ("gate.slices=[source]", "there is no feature 'source' to slice by"),
        ("gate.probes={prompts: 0}", "gate.probes: prompts: 0 cannot be"),
        (
            "model={family: keras_hub, preset: gpt2_base_en, pretrained: true}",
            "model.pretrained needs the tokenizer that the weights were trained with: "
            "set tokenizer.type to preset (it is bpe)",
        ),
        (
            "model={family: keras_hub, preset: /absent/folder}",
            "model.preset '/absent/folder' is no folder with a KerasHub preset: [Errno",
        ),
        (
            "model={family: keras_hub, preset: gpt2_base_en, hidden_dim: 3}",
            "unknown key model.hidden_dim: known are family, preset",
        ),
        ("root=s3://bucket/runs", "TensorFlow writes to no s3://: take a folder or gs"),
        (
            "root=runs/[a]",
            "runs/[a] has a [ in it, which TFX and Beam take",
        ),
        ("serving.push_folder=a\udcff", "push_folder: 'a\\udcff' cannot be"),
        ("trainer.steps", "write it as section.key=value"),
        ("name.first=x", "name is no section"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(setting, said):
    with pytest.raises(loading.ConfigError) as raised:
        loading.load(settings=[setting])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "path",
    [
        *("a #b/*.txt", "a: b", "*.txt", "~texts", "- a", "[a].txt", "{a}", "'a'"),
        *("&a", "!a", "%a", "@a", "`a`", "a\U0001f600/[x].txt", "[/x]", 'a"b', "a,b]"),
    ],
)
def test_a_path_stands_as_it_is_written(path, tmp_path):
    loaded = loading.load(
        settings=[("corpus.path", path), ("serving.push_folder", path)]
    )
    assert loaded.corpus.path == path
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml(), encoding="utf-8")
    assert loading.load(tmp_path / "resolved.yaml") == loaded
    if path[0] not in "[{'":
        assert loading.load(settings=[f"corpus.path={path}"]).corpus.path == path


def test_the_home_folder_is_found_where_no_shell_does(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    loaded = loading.load(settings=["root=~/runs", "serving.push_folder=~/served"])
    assert (loaded.root, loaded.push_folder) == ("/home/me/runs", "/home/me/served")
    corpus = loading.load(settings=["corpus.path=~/texts"]).corpus
    assert [source.path for source in corpus.all_sources] == ["/home/me/texts"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("7", 7), ("3e-4", 3e-4), ("true", True), ("null", None), ("~", None)),
        *(("'7'", "7"), ('"a # b"', "a # b"), ("[a, {b: 1}]", ["a", {"b": 1}])),
        ("\n- a # one\n- b", ["a", "b"]),
    ],
)
def test_the_value_of_a_setting_has_the_type_that_yaml_gives_it(text, value):
    assert loading._value(text) == value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["name=[a] # b"], "--set name=[a] # b: the value is not YAML: # b would be"),
        (["trainer.stepz=3", "trainer.steps=4"], "--set trainer.stepz=3: unknown key"),
        (["trainer.steps=x", "name=a"], "--set trainer.steps=x: trainer.steps: 'x'"),
        (["trainer={steps: x}"], "--set trainer={steps: x}: trainer.steps: 'x' cannot"),
        (["gate.slices=[source]", "name=a"], "--set gate.slices=[source]: gate: there"),
        (["model.family=grue", "name=a"], "--set model.family=grue: model.family: "),
        ([("corpus.path", 7)], "--set corpus.path=7: corpus.path: 7 cannot be"),
    ],
)
def test_an_error_names_the_setting_that_it_is_of(settings, said):
    with pytest.raises(loading.ConfigError) as raised:
        loading.load(settings=settings)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: [", "is not YAML"),
        ("- a list", "must hold keys and values"),
        ("name: x", "the key model is missing"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(loading.ConfigError) as raised:
        loading.load(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(loading.ConfigError, match=r"cannot read .*absent\.yaml"):
        loading.load(tmp_path / "absent.yaml")


def test_a_path_is_a_corpus_of_one_source():
    corpus = loading.load(settings=["corpus.path=texts/"]).corpus
    assert corpus.all_sources == [SourceSettings(path="texts/")]


def test_a_source_takes_from_the_corpus_what_it_does_not_say(tmp_path):
    setting = (
        "corpus={text_field: body, fields: {label: mood}, documents: line, sources: "
        "[{path: a, weight: 2}, {path: b, format: csv, text_field: t, fields: {}}]}"
    )
    loaded = loading.load(settings=[setting])
    assert loaded.corpus.all_sources == [
        SourceSettings(
            path="a",
            documents="line",
            text_field="body",
            fields={"label": "mood"},
            weight=2,
        ),
        SourceSettings(path="b", format="csv", documents="line", text_field="t"),
    ]
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml())
    assert loading.load(tmp_path / "resolved.yaml") == loaded


def test_checking_a_configuration_imports_no_tensorflow():
    code = (
        "import sys, langzoo.pipelines.configuration.loading as c; c.load(); "
        "heavy = ('tensorflow', 'tfx', 'keras', 'apache_beam'); "
        "sys.exit(any(m in sys.modules for m in heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def saved_lstm(tmp_path_factory):
    """Folder of a preset that a run could have saved."""
    folder = tmp_path_factory.mktemp("saved")
    model = build_causal_lm("lstm", ByteTokenizer(), 48, hidden_dim=8, num_layers=2)
    model.save_to_preset(str(folder))
    return str(folder)


def test_initial_weights_stand_for_their_architecture(saved_lstm, tmp_path):
    model = f"model={{initial_weights: {saved_lstm}, dropout: 0.5}}"
    loaded = loading.load(settings=[model, "tokenizer.type=preset"])
    assert (loaded.model.family, loaded.model.context_length) == ("lstm", 48)
    assert (loaded.model.hidden_dim, loaded.model.dropout) == (8, 0.5)
    assert loaded.weights_preset == saved_lstm
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml())
    assert loading.load(tmp_path / "resolved.yaml") == loaded


def test_initial_weights_need_their_tokenizer(saved_lstm):
    with pytest.raises(
        loading.ConfigError, match="initial_weights needs the tokenizer"
    ):
        loading.load(settings=[f"model={{initial_weights: {saved_lstm}}}"])


def test_initial_weights_of_another_family_are_refused(saved_lstm):
    setting = f"model={{initial_weights: {saved_lstm}, family: gru}}"
    with pytest.raises(loading.ConfigError, match="of family 'lstm', not 'gru'"):
        loading.load(settings=[setting, "tokenizer.type=preset"])


def test_a_family_without_a_state_cannot_carry_it():
    with pytest.raises(loading.ConfigError, match="one of rnn, gru, lstm"):
        loading.load(settings=["model.family=tcn", "trainer.carry_state=true"])


def test_a_state_is_carried_through_contiguous_rows_only():
    settings = ["model={family: lstm}", "trainer.carry_state=true"]
    with pytest.raises(loading.ConfigError, match=r"trainer\.packing contiguous"):
        loading.load(settings=[*settings, "trainer.packing=lines"])


def test_a_model_of_keras_hub_cannot_keep_the_documents_of_a_row_apart():
    model = "model={family: keras_hub, preset: gpt2_base_en}"
    with pytest.raises(loading.ConfigError, match="take contiguous or lines"):
        loading.load(settings=[model, "trainer.packing=best_fit"])
    assert loading.load(settings=[model, "trainer.packing=lines"])


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_a_recurrent_family_can_carry_its_state(family):
    settings = [f"model={{family: {family}}}", "trainer.carry_state=true"]
    assert loading.load(settings=settings).trainer.carry_state


def test_a_mixture_is_written_with_all_that_its_members_are():
    members = "[{family: gated_conv}, {family: ngram, order: 3}]"
    config = loading.load(settings=[f"model={{family: mixture, members: {members}}}"])
    written = yaml.safe_load(config.to_yaml())["model"]["members"]
    assert written[0]["kernel_size"] == 4
    assert written[1]["order"] == 3
    again = loading.load(
        settings=[("model", yaml.safe_load(config.to_yaml())["model"])]
    )
    assert again.model == config.model


@pytest.mark.parametrize(
    ("members", "changes", "said"),
    [
        ("lstm, gru", "trainer.carry_state=true", ""),
        ("lstm, ngram", "trainer.carry_state=true", "needs a family that has a state"),
        ("lstm, ngram", "serving.score_stride=0", "needs a family that has a state"),
        ("lstm, ngram", "trainer.packing=best_fit", ""),
        (
            "ngram, ngram",
            "search={algorithm: hyperband, space: {trainer.seed: [1, 2]}}",
            "only counts",
        ),
    ],
)
def test_a_mixture_can_what_its_members_can(members, changes, said):
    families = "".join(f"{{family: {name}}}, " for name in members.split(", "))
    settings = [f"model={{family: mixture, members: [{families}]}}", changes]
    if not said:
        assert loading.load(settings=settings)
        return
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(settings=settings)


def test_a_wrong_member_is_told_by_its_number():
    members = "[{family: lstm}, {family: ngram, ordr: 3}]"
    with pytest.raises(loading.ConfigError, match=r"members\.1: .*did you mean order"):
        loading.load(settings=[f"model={{family: mixture, members: {members}}}"])


def test_rules_inherit_the_significance_of_the_gate_where_they_compare():
    settings = [
        "gate.significant=true",
        "gate.min_improvement=-0.1",
        "gate.rules=[{metric: perplexity, max: 9}, {metric: size_mb, against: ngram, "
        "significant: false}, {metric: perplexity, against: ngram}]",
    ]
    gate = loading.load(settings=settings).gate
    assert gate.needs_ngram
    assert not loading.load().gate.needs_ngram
    assert [str(rule) for rule in gate.rules_of("causal_lm")] == [
        "bits_per_byte <= 2.2",
        "bits_per_byte <= last_blessed + 0.1, significantly",
        "perplexity <= 9",
        "size_mb <= ngram",
        "perplexity <= ngram, significantly",
    ]


SECRETS = {
    "a-name": "kubeflow.environment.AWS_SECRET_ACCESS_KEY=hidden",
    "a-component's": "kubeflow.trainer.environment.HF_TOKEN=hidden",
    "a-proxy": "kubeflow.environment.HTTPS_PROXY=http://me:hidden@proxy:3128",
    "an-option": 'beam_pipeline_args=["--s3_secret_access_key=hidden"]',
    "an-address": "corpus.path=s3://me:hidden@bucket/texts",
    "a-push-folder": "serving.push_folder=s3://me:hidden@bucket/models",
}


@pytest.mark.parametrize("setting", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_refused_where_it_would_be_written_down(setting):
    with pytest.raises(loading.ConfigError, match=r"secret|password") as raised:
        loading.load(settings=[setting])
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "path", ["hf://glue:sst2@validation", "tfds://imdb:1.0.0@test", "s3://b/a:b@c.txt"]
)
def test_what_is_no_password_is_taken(path):
    assert loading.load(settings=[f"corpus.path={path}"]).corpus.path == path


def test_the_record_of_a_run_leaves_variables_of_containers_out():
    settings = [
        "kubeflow.environment={AWS_REGION: here, GOOGLE_APPLICATION_CREDENTIALS: /f}",
        "kubeflow.trainer.environment={AWS_WEB_IDENTITY_TOKEN_FILE: /t}",
        "corpus.path=hf://glue:sst2@validation",
    ]
    loaded = loading.load(settings=settings)
    assert loaded.kubeflow.of("Trainer").environment["AWS_REGION"] == "here"
    assert "environment" not in loaded.to_yaml()
    assert "hf://glue:sst2@validation" in loaded.to_yaml()

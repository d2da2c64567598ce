"""Settings that a config does not use, and recipes that are only a name: refused where a user gives them."""

import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest

import kernorm
from kernorm.api.settings import config_of
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.recipes import RECIPES, recipe, recipe_of_words
from kernorm.reporting.command import command
from kernorm.studies.definition import study_of
from kernorm.studies.vary import varied_study
from kernorm.system import cli
from kernorm.unused import require_recipe, require_used, unused_settings, without_unused
from tuner import tfx
from tuner.config import SearchConfig

ADAMW = {"optimizer": "adamw"}
STILL = {"rotation": 0.0, "shift": 0.0}
# A setting that does nothing, the settings that make it do something, and what the refusal says.
UNUSED = [
    ({"groups": 8}, {"norm": "gn"}, r"--groups belongs to --norm gn\. Received: groups=8\. Remove it\."),
    ({"ghost_batch_size": 16}, {"norm": "gbn"}, "--ghost-batch-size belongs to --norm gbn"),
    ({"standardize_kernels": True, "norm": "none"}, {"norm": "ln"}, "--standardize-kernels belongs to a convolution"),
    ({"nesterov": False, **ADAMW}, {"optimizer": "muon"}, "--nesterov belongs to --optimizer sgd and muon"),
    ({"pct_start": 0.1, "schedule": "cosine"}, {"schedule": "onecycle"}, "--pct-start belongs to --schedule onecycle"),
    ({"div_factor": 10.0, "schedule": "step"}, {"schedule": "onecycle"}, "--div-factor belongs to"),
    ({"final_div_factor": 10.0, "schedule": "step"}, {"schedule": "onecycle"}, "--final-div-factor belongs to"),
    ({"anneal": "linear", "schedule": "constant"}, {"schedule": "onecycle"}, "--anneal belongs to"),
    ({"step_size": 3}, {"schedule": "step"}, "--step-size belongs to --schedule step"),
    ({"step_gamma": 0.5}, {"schedule": "step"}, "--step-gamma belongs to --schedule step"),
    ({"step_after": 1}, {"schedule": "step"}, "--step-after belongs to --schedule step"),
    ({"elastic_sigma": 5.0}, {"elastic": 34.0}, "--elastic-sigma belongs to --elastic"),
    ({"fill": "reflect", **STILL}, {"shift": 0.1}, "--fill belongs to images that are moved"),
    ({"interpolation": "nearest", **STILL}, {"zoom": 0.1}, "--interpolation belongs to images that are moved"),
]


@pytest.mark.parametrize(("settings", "used", "said"), UNUSED, ids=[next(iter(row[0])) for row in UNUSED])
def test_a_setting_that_does_nothing_is_refused_wherever_it_is_given(settings, used, said):
    with pytest.raises(UsageError, match=said):
        config_of(None, dict(settings))
    with pytest.raises(UsageError, match=said):
        SearchConfig(train=TrainConfig(**settings))
    assert config_of(None, settings | used) == TrainConfig(**settings | used)
    name = next(iter(settings))
    assert without_unused(TrainConfig(**settings)) == replace(
        TrainConfig(**settings), **{name: getattr(TrainConfig, name)}
    )


def test_a_norm_of_a_single_layer_uses_its_settings():
    config = TrainConfig(norm="bn", norm_at=("conv2=gn", "conv3=gbn"), groups=2, ghost_batch_size=8)
    require_used([config])
    assert not {"groups", "ghost_batch_size"} & {*unused_settings(config)}


@pytest.mark.parametrize("name", RECIPES)
def test_what_comes_with_a_recipe_is_not_refused(name):
    config_of(None, {"recipe": name, "schedule": "constant", "base_momentum": None, "warmup": 0.0})
    require_recipe(recipe(name, norm="ln"))


def test_a_recipe_that_is_only_a_name_is_refused():
    named = TrainConfig(recipe="best")
    said = r'^A recipe is a set of values, which TrainConfig by itself does not take\. .*kernorm\.recipe\("best", …\)\.'
    with pytest.raises(UsageError, match=said):
        study_of("mine", {"a": TrainConfig(), "b": named}, text="Which?")
    with pytest.raises(UsageError, match=said):
        SearchConfig(train=named)
    with pytest.raises(UsageError, match=said):
        kernorm.train_model(named)
    with pytest.raises(UsageError, match=r"^A recipe is a set of values, which a config has already\. Received: reci"):
        kernorm.train_model(TrainConfig(), recipe="best")
    with pytest.raises(UsageError, match=r"^--recipe takes a known name\. Received: 'bets'\. Did you mean 'best'\?"):
        study_of("mine", {"a": TrainConfig(), "b": TrainConfig(recipe="bets")}, text="Which?")


def test_a_recipe_of_tfx_sets_its_values(tmp_path):
    fn_args = SimpleNamespace(
        custom_config={"recipe": "best", "epochs": 2, "search": {"max_trials": 1}},
        working_dir=str(tmp_path),
        train_files=[],
        eval_files=[],
    )
    train = tfx.tuner_fn(fn_args).tuner.config.train
    assert train == recipe("best", epochs=2, dataset=train.dataset)


def test_arms_that_compute_the_same_are_refused():
    arms = {"a": TrainConfig(norm="bn"), "b": TrainConfig(norm="bn", groups=8)}
    with pytest.raises(UsageError, match=r"^Two arms must differ\. Received: 'a' and 'b' of this call, which compute"):
        study_of("mine", arms, text="Which?")
    with pytest.raises(UsageError, match=r"^Two arms must differ\."):
        study_of("mine", {"a": recipe("best"), "b": TrainConfig(**RECIPES["best"])}, text="Which?")
    study_of("mine", arms | {"b": TrainConfig(norm="gn", groups=8)}, text="Which?")


def test_a_varied_setting_makes_arms_only_where_it_is_used():
    study = varied_study(["norm=bn,gn", "groups=2,4"], ["--net", "eva6"])
    assert study.arms == {
        "bn": TrainConfig(net="eva6", norm="bn"),
        "gn-groups_2": TrainConfig(net="eva6", norm="gn", groups=2),
        "gn-groups_4": TrainConfig(net="eva6", norm="gn", groups=4),
    }
    with pytest.raises(UsageError, match=r"^--step-gamma belongs to --schedule step\. Received: step_gamma=0\.5\."):
        varied_study(["step-gamma=0.1,0.5"], [])
    with pytest.raises(UsageError, match=r"^--groups belongs to --norm gn\. Received: groups=8\."):
        varied_study(["norm=bn,ln"], ["--groups", "8"])
    arms = varied_study(["norm=bn,gn"], ["--groups", "8"]).arms
    assert (arms["bn"], arms["gn"].groups) == (TrainConfig(), 8)
    # What is not used has the recipe's value, so that a page's command trains the same run.
    grid = varied_study(["optimizer=sgd,adamw", "nesterov=true,false"], ["--recipe", "cifar"])
    assert list(grid.arms) == ["sgd-nesterov_true", "sgd-nesterov_false", "adamw"]
    for config in grid.arms.values():
        words = shlex.split(command(config))[3:]
        again = cli.parse(TrainConfig, prog="train", argv=words, default=recipe_of_words(words))
        assert again == config
        require_used([again])


def test_the_command_of_a_run_leaves_out_what_it_does_not_use():
    assert command(TrainConfig(norm="bn", groups=2)) == "python -m kernorm.train"


def test_a_field_that_a_config_had_before_is_not_refused_with_another_one():
    before = recipe("default", norm="gn", groups=2)
    assert config_of(before, {"norm": "bn"}) == replace(before, norm="bn")
    assert config_of(TrainConfig(groups=2), {}) == TrainConfig(groups=2)
    with pytest.raises(UsageError, match="--groups belongs to --norm gn"):
        config_of(before, {"norm": "bn", "groups": 4})


def test_settings_of_the_norms_that_a_model_has_are_used():
    assert config_of(None, {"groups": 4}, own_norms=True).groups == 4


def test_a_search_may_name_what_one_of_its_norms_uses():
    SearchConfig(train=TrainConfig(ghost_batch_size=8), norms="bn,gbn")
    with pytest.raises(UsageError, match="--ghost-batch-size belongs to --norm gbn"):
        SearchConfig(train=TrainConfig(ghost_batch_size=8), norms="bn,gn")

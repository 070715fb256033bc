"""The training loop: Keras's ``fit``, with a step of its own and a callback that asks the run; read in one sitting,
used by ``xlmr train`` and the recipes in ``examples/`` alike.

What is to be done in which step (batches, rates, when to evaluate, to save and to stop) the run knows; here it is done.
A step depends on the weights and moments before it, on the recipe, and on its number: dropout too is drawn from (seed,
step), so that a run that was killed ends in the same weights as an undisturbed one, bit for bit on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from xlmr_core.config import AutoConfig
from xlmr_core.errors import InputError, LoadWarning, MismatchError
from xlmr_core.training.depths import depth_of
from xlmr_core.training.parts import EMBEDDING
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.refusals import check_parts
from xlmr_tf import auto
from xlmr_tf.objectives import answers, given
from xlmr_tf.optimizers import freeze, optimizer_of
from xlmr_tf.pretrained import PreTrainedModel
from xlmr_tf.training_state import read_state, write_state
from xlmr_tf.training_step import Data, Trained, draw_from, spec_of

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Arrays
    from xlmr_core.training.reports import Outcome
    from xlmr_core.training.run import Run

__all__ = ["model_for", "train"]


def train(
    model: PreTrainedModel,
    run: Run,
    *,
    accumulate: int = 1,
    make_optimizer: Callable[[Any, Recipe, int], keras.optimizers.Optimizer] = optimizer_of,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome | None:
    """Train a model to the end of a run, or from where it was interrupted.

    In the scope of a ``tf.distribute.MirroredStrategy`` each device computes its rows of the same batch, and the result
    is that of one device.

    Args:
        model: of the run's task, in float32; its weights are changed in place.
        run: what is to be done, and its folder.
        accumulate: parts in which a batch is computed, one after the other, where it is too large for the memory.
        make_optimizer: makes an optimizer of the model, the recipe and the number of layers.
        callbacks: of Keras, before the one that asks the run.

    Returns:
        What came of it; ``None`` if the run was stopped.

    Raises:
        InputError: for a recipe that this model or these arguments cannot serve.
        TrainingError: as the run says.
    """
    recipe, task, layers = run.recipe, run.task, model.config.num_hidden_layers
    strategy = tf.distribute.get_strategy()
    check(recipe, accumulate, strategy)
    model._refuse_codes()
    keras.utils.set_random_seed(recipe.seed)
    if recipe.lora_rank and model.base_model.lora is None:
        model.enable_lora(recipe.lora_rank, recipe.lora_alpha, recipe.lora_targets)
    freeze(model, recipe, layers)
    policy = model.dtype_policy.name
    if recipe.precision != "float32":
        model.set_dtype(f"mixed_{recipe.precision}")
    optimizer = make_optimizer(model, recipe, layers)
    if recipe.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    trained = Trained(model, run)
    trained.compile(optimizer, jit_compile=False)  # sizes are free
    compute = tf.function(lambda batch: answers(model, task, batch), autograph=False)

    def predict(batch: Arrays) -> Arrays:
        tensors = {name: tf.convert_to_tensor(array) for name, array in given(task, batch).items()}
        found = compute.get_concrete_function({name: spec_of(x) for name, x in tensors.items()})(tensors)
        if not task.counted(batch):  # the mean over no label is no number; as nothing is counted, it is 0
            found = {name: tf.zeros(()) if name == "loss" else found[name] for name in task.outputs}
        return {name: value.numpy() for name, value in found.items()}

    def save(folder: Path) -> None:
        write_state(folder, model, optimizer)

    def load(folder: Path) -> None:
        read_state(folder, model, optimizer)

    step = run.restore(load)
    if run.goes_on(step):
        data = Data(run, step, accumulate, strategy)
        asking = Asking(run, data, step, save, predict)
        if asking.goes_on():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Your input ran out of data")  # the error says why
                trained.fit(data.dataset, callbacks=[*callbacks, asking], verbose=0, shuffle=False)
        if data.error is not None:
            raise data.error
    outcome = run.finish(model.save_pretrained, predict=predict)
    if recipe.precision != "float32":
        model.set_dtype(policy)
    return outcome


def model_for(run: Run) -> PreTrainedModel:
    """The model that a run starts from; what is new in it, such as its head, is drawn from the recipe's seed. A head
    for another number of labels than the run's is left, and a fresh one takes its place; one for as many goes on.
    """
    recipe, kind = run.recipe, getattr(auto, f"TF{run.task.auto}")
    # A sentence is the mean of its tokens, or the first of them: no pooler.
    bare = {"add_pooling_layer": False} if kind is auto.TFAutoModel else {}
    keras.utils.set_random_seed(recipe.seed)
    if recipe.config:
        config = AutoConfig.from_pretrained(recipe.config, **run.settings)
        return kind.from_config(config, dtype="float32", **bare)
    values = {"dtype": "float32", **run.settings, **bare}
    with warnings.catch_warnings(action="ignore", category=LoadWarning):  # that the head is to be trained
        try:
            return kind.from_pretrained(recipe.model, **values)
        except MismatchError as error:
            fresh = {"ignore_mismatched_sizes": True, "output_loading_info": True}
            model, info = kind.from_pretrained(recipe.model, **fresh, **values)
            names = [name for name, *_ in info["mismatched_keys"]]
            layers = model.config.num_hidden_layers
            if any(depth_of(name, layers) <= layers for name in names):
                raise error from None
    run.tell("", f"{recipe.model} was trained for another number of labels; {', '.join(names)} start fresh")
    return model


def check(recipe: Recipe, accumulate: int, strategy: tf.distribute.Strategy) -> None:
    """Refuse what cannot be served, before anything starts."""
    check_parts(accumulate, recipe)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise InputError(
            "expected the devices of one machine, as Keras has no fit for MultiWorkerMirroredStrategy; take "
            "training_step of xlmr_tf.distribution there, or run the recipe with PyTorch or Flax on several machines"
        )
    devices = strategy.num_replicas_in_sync
    if recipe.task == EMBEDDING and devices > 1:
        raise InputError(
            f"expected one device, which sees all vectors of a batch, received {devices}; train sentence embeddings "
            "with PyTorch or Flax on several"
        )


class Asking(keras.callbacks.Callback):
    """The callback that makes ``fit`` the loop of a run: before a step it sets what that is drawn from and its rate,
    behind it the run logs, evaluates, saves, and says whether to go on.

    Args:
        run: which is asked.
        data: what ``fit`` is given.
        step: the first to do, counted from 0.
        save, predict: as of ``run.after``.
    """

    def __init__(
        self, run: Run, data: Data, step: int, save: Callable[[Path], None], predict: Callable[[Arrays], Arrays]
    ) -> None:
        super().__init__()
        self.run, self.data, self.step, self.save, self.predict = run, data, step, save, predict

    def goes_on(self) -> bool:
        """Whether there is a step to compute; those whose batch has no labels are done by saying so."""
        while self.run.goes_on(self.step) and not self.data.teaches(self.step):
            self._done(0.0, 0.0)
        return self.run.goes_on(self.step)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Prepare a step."""
        self.model.optimizer.learning_rate = self.run.rate(self.step)
        draw_from(self.model, self.run.recipe.seed, self.step)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Say that it is done."""
        assert logs is not None, "what a step gives"
        self._done(logs["loss"], logs["norm"])
        self.model.stop_training = not self.goes_on()

    def _done(self, loss: Any, norm: Any) -> None:
        self.step += 1
        self.run.after(self.step, loss, norm, save=self.save, predict=self.predict)

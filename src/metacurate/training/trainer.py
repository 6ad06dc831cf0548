"""Training: open_clip's model and loss, a fixed budget of seen pairs, exact resume.

The output folder holds ``checkpoints/step-NNNNNNNNN.pt`` (weights, optimiser, place in the data),
``final.pt`` (weights; loads in open_clip like its own checkpoints), ``model.json`` (open_clip's
configuration of the model), ``metrics.jsonl`` (loss, learning rate, ...; no times),
``tensorboard/`` and ``manifest.json``. On a CPU a resumed run ends with the same bits as an
undisturbed one.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from traceback import clear_frames
from typing import Any, NotRequired, TypedDict, cast

from metacurate.needs import needs

with needs("train"):
    import torch
    from torch.nn.parallel import DistributedDataParallel

from metacurate.counts import counted
from metacurate.errors import Stopped, UserError, first_line
from metacurate.runtime.manifest import abandon, begin, finish, plan, remove_damaged, started
from metacurate.runtime.progress import meter
from metacurate.runtime.run import open_run
from metacurate.runtime.stage import do_again
from metacurate.runtime.storage import Folder, is_local, local_path, recorded
from metacurate.runtime.tracking import tracking
from metacurate.training.config import OptimizerSection, TrainConfig
from metacurate.training.distributed import Ranks, ranks
from metacurate.training.layout import (
    FINAL,
    METRICS,
    MODEL_FILE,
    TENSORBOARD,
    TRAIN,
    append_metrics,
    checkpoint_name,
    checkpoint_steps,
    last_loss,
    trim_metrics,
)
from metacurate.training.loader import Batch, PairLoader, join_states
from metacurate.training.open_clip_loop import Normaliser
from metacurate.training.openclip import (
    OpenClipTokenizer,
    check_vocabulary,
    create_model,
    open_clip,
    register,
    square_side,
)
from metacurate.training.stopping import stop_requests

MAX_SEED = 2**63
STATE = frozenset({"state_dict", "optimizer", "loader", "step", "loss_sums"})
"""What a checkpoint has at the least."""


class TrainTotals(TypedDict):
    """``loss``: the mean of the last log interval; ``skipped``: by reason (``reasons``).

    Only if this call trained there are ``pairs_per_second`` and ``data_wait``, its share of the
    time.
    """

    steps: int
    seen_pairs: int
    loss: float
    epoch: int
    skipped: dict[str, int]
    pairs_per_second: NotRequired[float]
    data_wait: NotRequired[float]


def train(
    config: TrainConfig, out: str, *, overwrite: bool = False, show_progress: bool = False
) -> TrainTotals:
    """Train as configured, or go on with a run that was stopped.

    Under torchrun each process is a rank. Raises UserError for what the caller can fix, and
    Stopped, after a checkpoint, if SIGTERM or SIGINT asks for it.
    """
    register(config.model)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with ranks() as here, ExitStack() as stack:
        folder = Folder(out)
        problem: UserError | None = None
        totals = None
        if here.first:
            try:
                run = stack.enter_context(
                    open_run(
                        out, inputs=config.data.shards, workers=1,
                        overwrite=overwrite, show_progress=show_progress,
                    )
                )  # fmt: skip
                settings = {"train": config.as_json()}
                # Before the first checkpoint there is nothing to lose: settings may be corrected.
                fresh = not (checkpoint_steps(folder) or folder.exists(FINAL))
                start = partial(begin, folder, TRAIN, settings, overwrite=overwrite or fresh)
                totals = do_again(run, [TRAIN], start)
            except UserError as error:
                problem = error
        here.agree(problem)
        totals = here.gather(totals)[0]
        if totals is not None:
            return cast(TrainTotals, totals)
        try:
            trainer = _trainer(config, folder, here, show_progress)
            if here.first:
                plan(folder, TRAIN, config.steps)
                remove_damaged(folder, TRAIN)
            with trainer.joined():
                return trainer.run()
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory is full ({first_line(error)}); set accumulate = 2 or "
                "more, grad_checkpointing = true or a smaller global_batch"
            ) from None


def _trainer(config: TrainConfig, folder: Folder, here: Ranks, show_progress: bool) -> Trainer:
    """The trainer; if the data or the model cannot be used, on any rank, the run has not begun."""
    problem = None
    try:
        trainer = Trainer(config, folder, here, show_progress)
    except UserError as error:
        problem = error
    try:
        here.agree(problem)
    except UserError:
        if here.first:
            abandon(folder, TRAIN)
        here.gather(None)  # torchrun ends all ranks once one has ended
        raise
    return trainer


@dataclass
class Progress:
    """What a run has done; saved with each checkpoint."""

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0


class Trainer:
    """One run on one rank."""

    def __init__(
        self, config: TrainConfig, folder: Folder, here: Ranks, show_progress: bool
    ) -> None:
        self.config, self.folder, self.here, self._show = config, folder, here, show_progress
        clip = open_clip()
        share = config.global_batch // here.world_size
        if config.global_batch % (here.world_size * config.accumulate):
            raise UserError(
                f"global_batch ({config.global_batch}) must be a multiple of ranks times "
                f"accumulate ({here.world_size} x {config.accumulate})"
            )
        self._micro = share // config.accumulate
        if here.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        torch.manual_seed(config.seed % MAX_SEED)
        model = create_model(config.model, here.device)
        if config.grad_checkpointing:
            model.set_grad_checkpointing()
        self._clip_model = model
        preprocess = clip.get_model_preprocess_cfg(model)
        self._normalise = Normaliser(preprocess["mean"], preprocess["std"], here.device)
        tokenizer = OpenClipTokenizer(config.model)
        check_vocabulary(config.model, tokenizer(["a text"]))  # here rather than in a worker
        self.loader = PairLoader(
            config.data_config(square_side(preprocess["size"], config.model.name)),
            tokenizer,
            rank=here.rank,
            world_size=here.world_size,
            workers=config.data.workers,
            prefetch=config.data.prefetch,
            device=here.device,
        )
        self.model: torch.nn.Module = model
        self.loss = clip.ClipLoss(
            local_loss=config.local_loss,
            gather_with_grad=True,
            cache_labels=True,
            rank=here.rank,
            world_size=here.world_size,
        )
        self.optimizer = make_optimizer(model, config.optimizer, fused=here.device.type == "cuda")
        self.progress = Progress()
        self._losses: list[torch.Tensor] = []

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Share the weights with the other ranks, all of which come here, in the block.

        What shares them is gone at its end: it must not outlive the process group. It would end
        gloo's group while it holds Python's lock, and wait for a thread that waits for that lock.
        """
        if self.here.world_size > 1:
            on_gpu = self.here.device.type == "cuda"
            self.model = DistributedDataParallel(
                self._clip_model, device_ids=[self.here.device] if on_gpu else None
            )
        try:
            yield
        except BaseException as error:
            clear_frames(error.__traceback__)  # those of a failed forward pass hold it, too
            raise
        finally:
            self.model = self._clip_model

    def run(self) -> TrainTotals:
        """Train to the end of the budget, from the newest checkpoint if there is one."""
        config, here = self.config, self.here
        if here.first:
            model_config = open_clip().get_model_config(config.model.name)
            self.folder.write_json(MODEL_FILE, model_config)
        self._load()
        start_step, start = self.progress.step, time.perf_counter()
        loss = None
        with (
            meter(
                "train", config.steps, "pairs", parts="steps", show=self._show and here.first
            ) as bar,
            _writers(config, self.folder, here) as write,
            stop_requests(here) as stop,
        ):
            if here.first:
                started(self.folder, TRAIN, start_step)
            bar.advance(shards=start_step)
            window = _Window(self.loader)
            for batch in self.loader:
                if self.progress.step >= config.steps:
                    break
                self._losses.append(self._step(batch))
                self.progress.step += 1
                step = self.progress.step
                bar.advance(config.global_batch)
                if step % config.log_every == 0 or step == config.steps:
                    loss = self._mean_loss()
                    metrics = {
                        "step": step,
                        "seen_pairs": step * config.global_batch,
                        "loss": loss,
                        "lr": self.optimizer.param_groups[0]["lr"],
                        "logit_scale": float(self._clip_model.logit_scale.detach().exp()),
                        "epoch": min(here.gather(self.loader.epoch)),
                    }
                    if not math.isfinite(loss):
                        raise UserError(
                            f"the loss is {loss} at step {step}; resume with a smaller learning "
                            "rate or gradient clipping, in a new output folder"
                        )
                    write(metrics, window.measure(config.log_every * config.global_batch))
                    bar.tell(f"loss {loss:.4g}")
                if step % config.checkpoint_every == 0 or step == config.steps:
                    self._save()
                if step == config.steps:
                    break
                if number := stop.wanted(step):
                    self._save()
                    raise Stopped(
                        f"stopped at step {step} of {config.steps}; "
                        "run the same command again to resume",
                        number,
                    )
        return self._finish(loss, start_step, time.perf_counter() - start)

    def _fold_losses(self) -> None:
        """Read the losses from the device; not done every step, since the CPU waits for it."""
        if self._losses:
            self.progress.loss_sum += float(torch.stack(self._losses).cpu().double().sum())
            self.progress.loss_steps += len(self._losses)
            self._losses = []

    def _mean_loss(self) -> float:
        """The mean loss of the steps since the last log line, over all ranks."""
        self._fold_losses()
        progress = self.progress
        values = self.here.gather(progress.loss_sum / progress.loss_steps)
        progress.loss_sum, progress.loss_steps = 0.0, 0
        return math.fsum(values) / len(values)

    def _step(self, batch: Batch) -> torch.Tensor:
        """One optimiser step; returns the loss."""
        config, here, step = self.config, self.here, self.progress.step
        # Whatever a model draws (patch dropout) depends on the step and the rank only.
        torch.manual_seed((config.seed * 1_000_003 + step * here.world_size + here.rank) % MAX_SEED)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.optimizer, step, config.steps)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        images, tokens = self._normalise(batch.images), batch.tokens
        if config.accumulate == 1:
            with self._autocast():
                loss: torch.Tensor = self.loss(**self.model(images, tokens))
            loss.backward()
        else:
            loss = self._accumulated(images, tokens)
        if config.optimizer.grad_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.grad_clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self._clip_model.logit_scale.clamp_(0, math.log(config.max_logit_scale))
        return loss.detach()

    def _accumulated(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The loss of the whole batch with the activations of one part at a time in memory.

        First all features without gradients; then each part again with gradients, among the
        features of the others. The logit scale gets its gradient with the last part only: every
        part's loss is the whole loss.
        """
        parts = list(zip(images.split(self._micro), tokens.split(self._micro), strict=True))
        with torch.no_grad(), self._autocast():
            features = [self._clip_model(*part) for part in parts]
        loss = images.new_zeros(())
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with ExitStack() as stack:
                if not last and isinstance(self.model, DistributedDataParallel):
                    stack.enter_context(self.model.no_sync())
                with self._autocast():
                    output = self.model(*part)
                    joined = {
                        name: torch.cat(
                            [
                                output[name] if j == i else features[j][name]
                                for j in range(len(parts))
                            ]
                        )
                        for name in ("image_features", "text_features")
                    }
                    scale = output["logit_scale"]
                    loss = self.loss(**joined, logit_scale=scale if last else scale.detach())
                loss.backward()
        return loss

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.here.device.type, torch.bfloat16)

    # Checkpoints.

    def _save(self) -> None:
        """Write a checkpoint and remove old ones."""
        step = self.progress.step
        states = self.here.gather(self.loader.state_dict())
        self._fold_losses()
        sums = self.here.gather((self.progress.loss_sum, self.progress.loss_steps))
        if not self.here.first:
            return
        state = {
            "state_dict": self._clip_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": join_states(states),
            "step": step,
            "loss_sums": sums,
            "name": self.config.model.name,
        }
        save_torch(self.folder, checkpoint_name(step), state)
        steps, every = checkpoint_steps(self.folder), self.config.checkpoint_every
        # Where a signal stopped the run is no place of its own once there is a newer checkpoint.
        regular = [s for s in steps if s % every == 0 or s == step]
        for old in {*steps} - {*regular[-self.config.keep_checkpoints :]}:
            self.folder.remove(checkpoint_name(old))

    def _load(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        steps = checkpoint_steps(self.folder)
        newest = self.here.gather(steps[-1] if steps else None)[0]
        if newest is None:
            if self.here.first:
                self.folder.remove(METRICS)
            return
        state = load_torch(self.folder, checkpoint_name(newest))
        self._clip_model.load_state_dict(state["state_dict"])
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.here.device.type == "cuda"  # as here, not as where it was saved
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        sums = state["loss_sums"]
        # With another number of ranks each goes on from the mean: their mean is what is logged.
        mean = math.fsum(total for total, _ in sums) / len(sums), sums[0][1]
        own = sums[self.here.rank] if len(sums) == self.here.world_size else mean
        self.progress = Progress(newest, *own)
        if self.here.first:
            trim_metrics(self.folder, newest)

    def _finish(self, loss: float | None, start_step: int, seconds: float) -> TrainTotals:
        config, here = self.config, self.here
        skipped: Counter[str] = Counter()
        for counts in here.gather(dict(self.loader.skipped)):
            skipped.update(counts)
        waits = here.gather(self.loader.wait_seconds)
        epoch = min(here.gather(self.loader.epoch))
        if loss is None:  # a checkpoint of the last step was there
            loss = last_loss(self.folder)
        totals: TrainTotals = {
            "steps": config.steps,
            "seen_pairs": config.steps * config.global_batch,
            "loss": loss,
            "epoch": epoch,
            "skipped": counted(skipped),
        }
        if here.first:
            final = {"name": config.model.name, "state_dict": self._clip_model.state_dict()}
            with recorded() as written:
                save_torch(self.folder, FINAL, final)
            finish(
                self.folder, TRAIN, dict(totals), files={FINAL: written[self.folder.address(FINAL)]}
            )
        here.gather(None)  # no rank leaves before the files are there
        trained = (config.steps - start_step) * config.global_batch
        if not trained:
            return totals
        return {
            **totals,
            "pairs_per_second": trained / seconds,
            "data_wait": sum(waits) / len(waits) / seconds,
        }


class _Window:
    """Throughput and data wait since the last log line."""

    def __init__(self, loader: PairLoader) -> None:
        self._loader, self._start, self._wait = loader, time.perf_counter(), loader.wait_seconds

    def measure(self, pairs: int) -> dict[str, float]:
        now, wait = time.perf_counter(), self._loader.wait_seconds
        seconds = max(now - self._start, 1e-9)
        values = {
            "pairs_per_second": pairs / seconds,
            "data_wait": (wait - self._wait) / seconds,
        }
        self._start, self._wait = now, wait
        return values


@contextmanager
def _writers(config: TrainConfig, folder: Folder, here: Ranks) -> Iterator[Any]:
    """A function that writes a log line's values to where they go; only the first rank writes."""
    if not here.first:
        yield lambda metrics, timing: None
        return
    with ExitStack() as stack:
        board = _tensorboard(config, folder, stack)
        tracked = stack.enter_context(tracking(config.log_to, out=folder.url))
        tracked.settings("train", config.as_json())

        def write(metrics: dict[str, Any], timing: dict[str, float]) -> None:
            append_metrics(folder, metrics)
            step = metrics["step"]
            scalars = {k: v for k, v in {**metrics, **timing}.items() if k != "step"}
            if board is not None:
                for name, value in scalars.items():
                    board.add_scalar(f"train/{name}", value, step)
            tracked.log({f"train/{name}": value for name, value in scalars.items()}, step)

        yield write


def _tensorboard(config: TrainConfig, folder: Folder, stack: ExitStack) -> Any:
    if not config.tensorboard or not is_local(folder.url):
        return None
    with needs("train", otherwise="or set tensorboard = false"):
        from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(str(local_path(folder.address(TENSORBOARD))))
    stack.callback(writer.close)
    return writer


def make_optimizer(
    model: torch.nn.Module, settings: OptimizerSection, *, fused: bool
) -> torch.optim.Optimizer:
    """AdamW; no weight decay for biases, norms' gains and the logit scale (as open_clip)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    # A bias may be a table (of relative positions, in Swin's towers).
    plain = [p for name, p in named if p.ndim < 2 or "bias" in name]
    decayed = [p for name, p in named if p.ndim >= 2 and "bias" not in name]
    return torch.optim.AdamW(
        [
            {"params": plain, "weight_decay": 0.0},
            {"params": decayed, "weight_decay": settings.weight_decay},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=fused,
    )


def learning_rate(settings: OptimizerSection, step: int, steps: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then a cosine to zero at the end."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    passed = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))


def save_torch(folder: Folder, name: str, value: Any) -> None:
    """Write tensors and plain values, all or nothing."""
    with folder.create(name) as file:
        torch.save(value, file)


def load_torch(folder: Folder, name: str) -> dict[str, Any]:
    """Read a checkpoint (into the CPU's memory: a GPU's may be full of the model that it is for);
    code in the file is not run. UserError if it is damaged or is none of a run."""
    try:
        with folder.open(name) as file, zipfile.ZipFile(file) as parts:
            broken = parts.testzip()  # torch reads the numbers without looking at checksums
        if broken is not None:
            raise ValueError(f"{broken} does not fit its checksum")
        with folder.open(name) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        lacking = sorted(STATE - state.keys())
        if lacking:
            raise ValueError(f"it has no {lacking[0]}")
    except Exception as error:
        raise UserError(
            f"{folder.address(name)} is no usable checkpoint ({_reason(error)}); "
            "remove it to go on from an older one"
        ) from None
    found: dict[str, Any] = state
    return found


def _reason(error: Exception) -> str:
    """torch's advice is to run the code in a file that it cannot read."""
    if isinstance(error, zipfile.BadZipFile):
        return "it is not whole"
    return first_line(error) if "weights_only" not in str(error) else "it is no file of weights"

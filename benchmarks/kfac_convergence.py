"""Does K-FAC before LAMB or AdamW reach a loss in fewer updates, or sooner, than those alone?

    python -m benchmarks.kfac_convergence [--problem quadratic text] [--updates 400] [--seeds 1 2]
        [--only adamw kfac_adamw] [--flags kfac_inv_interval=10 kfac_stat_decay=0.95]

quadratic   least squares in 64 dimensions, eigenvalues of the inputs' covariance 1 to 1/10,000; loss above its least
text        BERT-tiny on CPython's documentation (sequences of 64, 64 an update, 2,048 words); held-out masked-LM loss

Every optimizer is given the same number of settings (`SETTINGS`: learning rates, for K-FAC with dampings), the same
data in the same order, the same initial weights (by seed), warm-up over a tenth of the updates and a constant rate
after it.  Losses are means over seeds.  Of each optimizer the setting with the least last loss is told, and when it and
its like with K-FAC reached the `target`, the greater of their last losses.  Times are of updates alone, without data
and evaluation; `cpu` is processor time, which neighbours on the machine disturb little.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.kfac_text import TextProblem
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.kfac.config import KfacConfig, build_preconditioner
from bert_pytorch.runtime.distributed import World


class Setting(NamedTuple):
    """What is tuned."""

    learning_rate: float
    damping: float | None = None
    """None: without K-FAC."""
    relative: bool = False
    """Whether damping is in units of a layer's mean curvature."""


class Point(NamedTuple):
    """A run at one evaluation."""

    update: float
    loss: float
    seconds: float
    cpu: float
    """Seconds of processor time."""


def _grid(
    learning_rates: tuple[float, ...], dampings: tuple[float | None, ...] = (None,), *, relative: bool = False
) -> list[Setting]:
    return [Setting(rate, damping, relative) for damping in dampings for rate in learning_rates]


SETTINGS: dict[str, dict[str, list[Setting]]] = {
    "quadratic": {
        "sgd": _grid((0.1, 0.2, 0.3, 0.6, 1.0, 1.5)),
        "lamb": _grid((3e-3, 1e-2, 2e-2, 4e-2, 1e-1, 2e-1)),
        "adamw": _grid((1e-3, 2e-3, 4e-3, 1e-2, 2e-2, 5e-2)),
        "kfac_sgd": _grid((3e-3, 1e-2, 3e-2), (1e-4, 1e-6)),
        "kfac_lamb": _grid((1e-2, 2e-2, 4e-2), (1e-4, 1e-6)),
        "kfac_adamw": _grid((4e-3, 8e-3, 1.6e-2), (1e-4, 1e-6)),
    },
    "text": {
        "adamw": _grid((5e-4, 1e-3, 2e-3, 4e-3)),
        "kfac_adamw": _grid((1e-3, 2e-3), (0.01, 0.1), relative=True),
        "lamb": _grid((2.5e-3, 5e-3, 1e-2, 2e-2)),
        "kfac_lamb": _grid((5e-3, 1e-2), (0.01, 0.1), relative=True),
    },
}
"""By problem and optimizer, as many of each."""


class Quadratic:
    """Least squares: y = W* x + noise, x of a covariance that gradient descent finds slow (condition 10,000)."""

    evaluation_interval = 5
    weight_decay = 1e-9  # as good as none; without any LAMB is Adam
    flags: dict[str, float] = {"kfac_factor_interval": 1, "kfac_inv_interval": 5, "kfac_kl_clip": 0.0}  # noqa: RUF012
    inputs, outputs, rows, noise = 64, 16, 256, 0.3

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._turn = torch.linalg.qr(torch.randn(self.inputs, self.inputs, generator=generator)).Q
        self._deviations = torch.logspace(0, -2, self.inputs)
        self._right = torch.randn(self.outputs, self.inputs, generator=generator) / self.inputs**0.5

    def model(self, seed: int) -> nn.Module:
        """Begin with weights as large as those that are sought: LAMB's steps are parts of their size."""
        model = nn.Sequential(nn.Linear(self.inputs, self.outputs, bias=False))
        nn.init.normal_(model[0].weight, std=self.inputs**-0.5, generator=torch.Generator().manual_seed(seed))
        return model

    def updates(self, seed: int) -> Iterator[tuple[float, Callable[[nn.Module], torch.Tensor]]]:
        """Yield what each update's loss is a mean over, and the loss."""
        rows = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(self.rows, self.inputs, generator=rows) * self._deviations @ self._turn.T
            y = x @ self._right.T + self.noise * torch.randn(self.rows, self.outputs, generator=rows)
            yield self.rows, lambda model, x=x, y=y: 0.5 * (model(x) - y).square().sum(1).mean()

    def loss(self, model: nn.Module) -> float:
        """Return the expected loss above the least, ½ tr(Δ Σ Δᵀ)."""
        difference = (model[0].weight.detach() - self._right) @ (self._turn * self._deviations)  # type: ignore[index]
        return 0.5 * float(difference.square().sum())


Problem = Quadratic | TextProblem


def train(problem: Problem, optimizer_name: str, setting: Setting, updates: int, seed: int = 1) -> list[Point]:
    """Take updates with one setting and return the loss on the way."""
    model, name = problem.model(seed), optimizer_name.removeprefix("kfac_")
    if name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters())
    else:
        config = OptimizerConfig(optimizer=name, weight_decay=problem.weight_decay)  # type: ignore[arg-type]
        optimizer = build_optimizer(config, model.named_parameters())
    flags = KfacConfig(
        kfac=setting.damping is not None,
        kfac_damping=setting.damping or 1.0,
        kfac_relative_damping=setting.relative,
        **problem.flags,  # type: ignore[arg-type]
    )
    kfac = build_preconditioner(flags, model, World())
    points = [Point(0, problem.loss(model), 0.0, 0.0)]
    seconds = cpu = 0.0
    for step, (terms, loss_of) in zip(range(1, updates + 1), problem.updates(seed), strict=False):
        begun = time.perf_counter(), time.process_time()
        learning_rate = setting.learning_rate * min(1.0, step / max(1, updates // 10))
        if kfac is not None:
            kfac.begin(step, loss_terms=terms, gradient_scale=1.0)
        loss_of(model).backward()
        if kfac is not None:
            kfac.passes_done()
            kfac.precondition(learning_rate=learning_rate)
        if name != "sgd":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds, cpu = seconds + time.perf_counter() - begun[0], cpu + time.process_time() - begun[1]
        if step % problem.evaluation_interval == 0 or step == updates:
            points.append(Point(step, problem.loss(model), seconds, cpu))
            if not points[-1].loss < 10 * points[0].loss:
                break  # diverged, or not a number
    return points


def reached(points: list[Point], target: float) -> Point | None:
    """Return the first evaluation at or under the target."""
    return next((point for point in points if point.loss <= target), None)


def last_loss(points: list[Point]) -> float:
    """Return the mean of the last three evaluations; infinity where it diverged."""
    losses = [point.loss for point in points[-3:]]
    return sum(losses) / len(losses) if all(loss < points[0].loss for loss in losses) else float("inf")


def averaged(runs: list[list[Point]]) -> list[Point]:
    """Return the means over seeds, as far as the shortest run went."""
    return [Point(*(sum(values) / len(runs) for values in zip(*points, strict=True))) for points in zip(*runs)]  # noqa: B905


def comparisons(best: dict[str, tuple[Setting, list[Point]]]) -> Iterator[dict[str, object]]:
    """Say of each optimizer, and of its like with K-FAC, when it reached what both do."""
    for optimizer in best:
        pair = [name for name in (optimizer, f"kfac_{optimizer}") if name in best]
        if len(pair) == 2:
            target = max(last_loss(best[name][1]) for name in pair)
            for name in pair:
                setting, points = best[name]
                there = reached(points, target)
                row = {"best": name, **setting._asdict(), "last_loss": last_loss(points), "target": target}
                yield row | ({} if there is None else there._asdict())


def main() -> None:
    """Print one JSON line a setting, then two a pair."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problem", choices=[*SETTINGS], nargs="+", default=[*SETTINGS])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=[*SETTINGS["quadratic"]], default=[*SETTINGS["quadratic"]])
    parser.add_argument("--flags", type=_flag, nargs="+", default=[], help="of K-FAC, instead of the problem's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/kfac_convergence"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.problem:
        problem = Quadratic() if name == "quadratic" else TextProblem(options.work)
        problem.flags = problem.flags | dict(options.flags)
        best: dict[str, tuple[Setting, list[Point]]] = {}
        for optimizer, settings in SETTINGS[name].items():
            if optimizer not in options.only:
                continue
            for setting in settings:
                runs = [train(problem, optimizer, setting, options.updates, seed) for seed in options.seeds]
                points, losses = averaged(runs), [last_loss(run) for run in runs]
                row = {"problem": name, "optimizer": optimizer, **setting._asdict(), "last_loss": last_loss(points)}
                curve = {int(point.update): round(point.loss, 4) for point in points[::2]}
                _print(row | {"losses": losses, "seconds": points[-1].seconds, "cpu": points[-1].cpu, "curve": curve})
                if optimizer not in best or last_loss(points) < last_loss(best[optimizer][1]):
                    best[optimizer] = setting, points
        for row in comparisons(best):
            _print({"problem": name} | row)


def _flag(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _print(row: dict[str, object]) -> None:
    print(json.dumps({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()

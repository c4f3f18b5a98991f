"""The targets against Eq. 7 and against sampling; the loss against loops; the teacher's hands off the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm.config.forcing import ForcingConfig, LogitNormalTau
from wm.losses.ranks import Alone
from wm.shortcut.forcing import Denoiser, ForcingLoss, ShortcutForcing, bootstrap_targets, corrupt
from wm.shortcut.labels import Labels, draw_labels, row_generators
from wm.shortcut.signal import SignalGrid

B, T, P, C = 8, 3, 2, 4
WARPED = ForcingConfig(
    k_max=16, tau_power=1.4, tau_distribution=LogitNormalTau(std=0.8), tau_min=0.02, dimension_shift=2.0
)
PLAIN = ForcingConfig(k_max=16)


class Network(torch.nn.Module):
    """A denoiser whose every output depends on every label and latent of the clip's frames."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(T * (P * C + 2), T * P * C)

    def forward(self, latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        given = torch.cat([latents.flatten(2), levels[..., None] / 16, steps[..., None] / 16], dim=2)
        return torch.tanh(self.mix(given.to(latents.dtype).flatten(1))).view(latents.shape)


def batch(
    config: ForcingConfig, rows: int = B, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Labels]:
    generators = row_generators(range(seed, seed + rows), "labels")
    labels = draw_labels(config.model_copy(update={"bootstrap_fraction": 0.6}), generators, T, 1.0)
    clean, noise = (
        torch.stack([torch.randn(T, P, C, generator=g, dtype=torch.float64) for g in generators]) for _ in range(2)
    )
    return clean.to(dtype), noise.to(dtype), labels


def rows_of(labels: Labels, rows: list[int]) -> Labels:
    bootstrapped = labels.bootstrapped[rows]
    return Labels(labels.levels[rows], labels.steps[rows], bootstrapped, bootstrapped.any(dim=1).nonzero().flatten())


def velocity_target(x1: Tensor, x2: Tensor, z: Tensor, tau: float, d: float) -> Tensor:
    """z~ + (1 - tau) (b' + b'')/2 of Eq. 7, as it is printed."""
    h = d / 2
    b1 = (x1 - z) / (1 - tau)
    z1 = z + b1 * h
    b2 = (x2 - z1) / (1 - (tau + h))
    return z + (1 - tau) * (b1 + b2) / 2


def one_frame(level: int, step: int) -> Labels:
    at = torch.tensor([[level]])
    return Labels(at, torch.full_like(at, step), torch.ones_like(at, dtype=torch.bool), torch.tensor([0]))


def every_shortcut(k_max: int) -> list[tuple[int, int]]:
    return [(level, step) for step in (2**i for i in range(1, 8)) if step <= k_max for level in range(0, k_max, step)]


def said(first: Tensor, second: Tensor) -> Denoiser:
    """A teacher that says these two things, whatever it is asked."""
    answers = iter([first, second])
    return lambda latents, levels, steps: next(answers)


def test_the_target_is_equation_7():
    signal = SignalGrid(ForcingConfig(), 1)
    for level, step in every_shortcut(64):
        x1, x2, z, elsewhere = (torch.randn(1, 1, 2, 3, dtype=torch.float64) for _ in range(4))
        labels = one_frame(level, step)
        target = bootstrap_targets(said(x1, x2), x1, z, labels, signal)
        torch.testing.assert_close(target, velocity_target(x1, x2, z, level / 64, step / 64), rtol=0, atol=1e-12)
        r = (step / 128) / (1 - level / 64 - step / 128)
        torch.testing.assert_close(target, (1 - r) / 2 * x1 + (1 + r) / 2 * x2, rtol=0, atol=2e-15)
        assert torch.equal(bootstrap_targets(said(x1, x2), x1, elsewhere, labels, signal), target)  # z~ drops out


def bf16_errors() -> tuple[float, float]:
    """Root mean square error over all labels of the x form and of the velocity form, in bf16, latents of unit scale."""
    signal = SignalGrid(ForcingConfig(), 1)
    squares: list[tuple[float, float]] = []
    for level, step in every_shortcut(64):
        tau = level / 64
        data, noise = torch.randn(2, 1, 1, 8, 32, dtype=torch.float64)
        z = ((1 - tau) * noise + tau * data).bfloat16()
        x1, x2 = ((data + 0.1 * torch.randn_like(data)).bfloat16() for _ in range(2))
        exact = velocity_target(x1.double(), x2.double(), z.double(), tau, step / 64)
        ours = bootstrap_targets(said(x1, x2), z, z, one_frame(level, step), signal)
        theirs = velocity_target(x1, x2, z, tau, step / 64)
        assert ours.dtype == theirs.dtype == torch.bfloat16
        squares.append(tuple((form.double() - exact).square().mean().item() for form in (ours, theirs)))
    ours, theirs = (sum(values) / len(values) for values in zip(*squares, strict=True))
    return ours**0.5, theirs**0.5


def test_in_bf16_its_error_is_half_of_the_velocity_form_s():
    ours, theirs = bf16_errors()
    print(f"bf16 error of the target: {ours:.2e}, of the velocity form: {theirs:.2e}")
    assert ours < 0.6 * theirs


@pytest.mark.parametrize("config", [PLAIN, WARPED], ids=["plain", "warped"])
def test_one_step_to_the_target_ends_where_two_half_steps_do(config):
    """Composed numerically, with signal levels and velocities in tau, for every label of the grid."""
    torch.manual_seed(1)
    network, signal = Network().double(), SignalGrid(config, 1)
    levels_and_steps = every_shortcut(16)
    rows = len(levels_and_steps)
    levels, steps = torch.tensor(levels_and_steps).T
    others = torch.randint(0, 16, (rows, T - 1))
    labels = Labels(
        torch.cat([others, levels[:, None]], dim=1),
        torch.cat([torch.ones_like(others), steps[:, None]], dim=1),
        torch.cat([torch.zeros_like(others), torch.ones_like(steps)[:, None]], dim=1).bool(),
        torch.arange(rows),
    )
    clean, noised = torch.randn(2, rows, T, P, C, dtype=torch.float64)
    target = bootstrap_targets(network, clean, noised, labels, signal)
    assert torch.equal(target[:, :-1], clean[:, :-1])  # flow targets
    for row, (level, step) in enumerate(levels_and_steps):
        z, asked_levels, asked_steps = (part[row : row + 1].clone() for part in (noised, labels.levels, labels.steps))
        asked_steps[:, -1] = step // 2
        for at in (level, level + step // 2):
            asked_levels[:, -1] = at
            tau, later = signal.tau[at], signal.tau[at + step // 2]
            x = network(z, asked_levels, asked_steps)
            z[:, -1] += (later - tau) * (x - z)[:, -1] / (1 - tau)
        tau, later = signal.tau[level], signal.tau[level + step]
        start = noised[row, -1]
        stepped = start + (later - tau) * (target[row, -1] - start) / (1 - tau)
        torch.testing.assert_close(stepped, z[0, -1], rtol=0, atol=1e-12)


def test_the_second_half_step_moves_all_bootstrapped_frames_and_no_other():
    clean, noise, labels = batch(PLAIN, rows=32)
    signal = SignalGrid(PLAIN, 1)
    asked: list[tuple[Tensor, Tensor, Tensor]] = []
    noised = corrupt(clean, noise, labels.levels, signal)
    rows, moved = labels.bootstrap_rows, labels.bootstrapped[labels.bootstrap_rows]
    assert moved.any()
    assert not moved.all()

    def teacher(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        asked.append((latents, levels, steps))
        return latents + 1

    bootstrap_targets(teacher, clean, noised, labels, signal)
    (z1, levels1, steps1), (z2, levels2, steps2) = asked
    assert torch.equal(z1, noised[rows])
    assert torch.equal(levels1, labels.levels[rows])
    assert torch.equal(steps1, torch.where(moved, labels.steps[rows] // 2, 1))
    assert torch.equal(steps2, steps1)
    assert torch.equal(levels2 - levels1, torch.where(moved, steps1, 0))
    assert torch.equal(z2[~moved], z1[~moved])
    assert (z2 != z1)[moved].all()


def test_corruption_goes_from_noise_to_data():
    signal = SignalGrid(WARPED, 1)
    clean, noise = torch.randn(2, 1, 17, P, C)
    noised = corrupt(clean, noise, torch.arange(17)[None], signal)
    assert torch.equal(noised[:, 0], noise[:, 0])
    assert torch.equal(noised[:, 16], clean[:, 16])
    tau = signal.tau[5].float()
    torch.testing.assert_close(noised[:, 5], (1 - tau) * noise[:, 5] + tau * clean[:, 5])


def losses(
    forcing: ShortcutForcing,
    network: torch.nn.Module,
    given: tuple[Tensor, Tensor, Labels],
    weights: Tensor | None = None,
    ranks: Alone | None = None,
) -> ForcingLoss:
    clean, noise, labels = given
    weights = torch.ones(len(clean), dtype=clean.dtype) if weights is None else weights
    return forcing(network, network, clean, noise, labels, weights, ranks or Alone())


def gradients(loss: Tensor, network: torch.nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def test_the_loss_is_a_loop_over_frames():
    network, forcing = Network().double(), ShortcutForcing(WARPED, 1)
    forcing.update({name: torch.tensor(value) for name, value in
                    {"flow": 0.2, "bootstrap": 0.04, "flow_frames": 0.5, "bootstrap_frames": 0.4}.items()})  # fmt: skip
    clean, noise, labels = given = batch(WARPED, rows=32)
    weights = torch.rand(32, dtype=torch.float64)
    found = losses(forcing, network, given, weights)
    noised = corrupt(clean, noise, labels.levels, forcing.signal)
    target = bootstrap_targets(network, clean, noised, labels, forcing.signal)
    predicted = network(noised, labels.levels, labels.steps)
    total, flow, bootstrap, error, clean_frames = 0.0, 0.0, 0.0, 0.0, 0
    for b in range(32):
        for t in range(T):
            level, share = int(labels.levels[b, t]), (weights[b] / weights.sum() / T).item()
            if level == 16:
                clean_frames += 1
                continue
            square = sum((predicted[b, t].flatten() - target[b, t].flatten()) ** 2).item() / (P * C)
            weighted = share * (0.9 * forcing.signal.tau[level].item() + 0.1) * square
            error += share * square
            if labels.steps[b, t] > 1:
                bootstrap += weighted
                total += weighted / 0.1
            else:
                flow += weighted
                total += weighted / 0.4
    assert clean_frames > 0
    # The scales are kept in float32.
    assert found.total.item() == pytest.approx(total, rel=1e-6)
    assert found.parts["flow"].item() == pytest.approx(flow)
    assert found.parts["bootstrap"].item() == pytest.approx(bootstrap)
    assert found.parts["error"].item() == pytest.approx(error)
    shares = found.parts["flow_frames"] + found.parts["bootstrap_frames"]
    rest = ((labels.levels == 16) * weights[:, None]).sum() / weights.sum() / T
    assert (shares + rest).item() == pytest.approx(1.0)
    assert not any(value.requires_grad for value in found.parts.values())


def test_no_gradient_and_no_graph_go_through_the_teacher():
    student, teacher = Network().double(), Network().double()
    clean, noise, labels = batch(PLAIN)
    forcing = ShortcutForcing(PLAIN, 1)
    clean.requires_grad_()
    answers: list[Tensor] = []

    def watched(*given: Tensor) -> Tensor:
        answers.append(teacher(*given))
        return answers[-1]

    noised = corrupt(clean, noise, labels.levels, forcing.signal)
    target = bootstrap_targets(watched, clean, noised, labels, forcing.signal)
    assert target.grad_fn is None
    assert not target.requires_grad
    assert len(answers) == 2
    assert all(answer.grad_fn is None and not answer.requires_grad for answer in answers)

    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        bootstrap_targets(teacher, clean, noised, labels, forcing.signal)
    assert not kept

    # Beside the student, the same weights: their gradient is that against a constant.
    loss = forcing(student, student, clean, noise, labels, torch.ones(B, dtype=clean.dtype)).total
    constant = bootstrap_targets(student, clean, noised, labels, forcing.signal)
    ramp = 0.9 * forcing.signal(labels.levels) + 0.1
    errors = (student(noised, labels.levels, labels.steps) - constant).square().mean(dim=(2, 3))
    expected = (ramp * errors * (labels.levels < 16)).mean()
    torch.testing.assert_close(gradients(loss, student), gradients(expected, student), rtol=1e-9, atol=1e-12)


def test_the_teacher_sees_bootstrap_clips_alone_and_is_not_asked_without_them():
    clean, noise, labels = batch(PLAIN)
    forcing, network, seen = ShortcutForcing(PLAIN, 1), Network().double(), []

    def teacher(latents: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        seen.append(len(latents))
        return latents

    assert 0 < len(labels.bootstrap_rows) < B
    forcing(network, teacher, clean, noise, labels, torch.ones(B, dtype=clean.dtype))
    assert seen == [len(labels.bootstrap_rows)] * 2
    flow = (~labels.bootstrapped.any(dim=1)).nonzero().flatten().tolist()
    rest = rows_of(labels, flow)
    found = forcing(network, teacher, clean[flow], noise[flow], rest, torch.ones(len(flow), dtype=clean.dtype))
    assert len(seen) == 2
    assert found.parts["bootstrap"] == found.parts["bootstrap_frames"] == 0


def test_under_autocast_the_teacher_costs_the_student_no_gradient():
    """Autocast must not hand the student weights that it cast for the teacher, without gradient."""
    network, forcing = Network(), ShortcutForcing(PLAIN, 1)
    given = batch(PLAIN, rows=64, dtype=torch.float32)
    exact = gradients(losses(forcing, network, given).total, network)
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses(forcing, network, given).total
    assert loss.dtype == torch.float32
    torch.testing.assert_close(gradients(loss, network), exact, rtol=0, atol=0.03 * exact.abs().max().item())


def add_up(pieces: list[tuple[float, ForcingLoss]]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the parts of a batch from those of its pieces, each times its share of the weights."""
    total = sum(share * piece.total for share, piece in pieces)
    assert isinstance(total, Tensor)
    names = pieces[0][1].parts
    return total, {name: torch.stack([share * piece.parts[name] for share, piece in pieces]).sum() for name in names}


@pytest.mark.parametrize("cut", [(8,), (1, 7), (3, 3, 2), (1,) * 8])
def test_pieces_are_the_whole(cut):
    network, forcing = Network().double(), ShortcutForcing(PLAIN, 1)
    forcing.rms.update(torch.tensor([0.3, 0.02]), torch.tensor([True, True]))
    clean, noise, labels = given = batch(PLAIN)
    weights = torch.rand(B, dtype=torch.float64)
    whole = losses(forcing, network, given, weights)
    pieces: list[tuple[float, ForcingLoss]] = []
    for rows in torch.arange(B).split(list(cut)):
        places = rows.tolist()
        piece = clean[places], noise[places], rows_of(labels, places)
        share = (weights[places].sum() / weights.sum()).item()
        pieces.append((share, losses(forcing, network, piece, weights[places])))
    total, parts = add_up(pieces)
    torch.testing.assert_close(parts, whole.parts, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(total, network), gradients(whole.total, network), rtol=1e-9, atol=1e-12)
    one, other = (ShortcutForcing(PLAIN, 1) for _ in range(2))
    one.update(whole.parts)
    other.update(parts)
    torch.testing.assert_close(one.rms(), other.rms())


class Half(Alone):
    """One of two workers, told the weights of both."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def mean_total(self, weights: Tensor) -> Tensor:
        return self.weights.sum() / 2


def test_two_workers_are_one():
    """Gradients and running scales of uneven halves: one has nearly all bootstrap clips."""
    network, forcing = Network().double(), ShortcutForcing(PLAIN, 1)
    clean, noise, labels = given = batch(PLAIN)
    order = labels.bootstrapped.any(dim=1).int().argsort().tolist()
    weights = torch.rand(B, dtype=torch.float64)
    whole = losses(forcing, network, given, weights)
    halves = [
        losses(forcing, network, (clean[rows], noise[rows], rows_of(labels, rows)), weights[rows], Half(weights))
        for rows in (order[:4], order[4:])
    ]
    mean = torch.stack([gradients(half.total, network) for half in halves]).mean(dim=0)
    torch.testing.assert_close(mean, gradients(whole.total, network), rtol=1e-9, atol=1e-12)

    class Pair(Alone):
        def mean(self, values: Tensor) -> Tensor:
            names = ("flow", "bootstrap")
            pairs = [
                torch.stack([half.parts[name + kind] for name in names]) for half in halves for kind in ("", "_frames")
            ]
            mine = next(i for i, pair in enumerate(pairs) if torch.equal(pair, values)) % 2
            return (pairs[mine] + pairs[mine + 2]) / 2

    one, two = (ShortcutForcing(PLAIN, 1) for _ in range(2))
    one.update(whole.parts)
    two.update(halves[0].parts, Pair())
    torch.testing.assert_close(one.rms(), two.rms())
    assert not torch.allclose(one.rms(), torch.ones(2))


def test_unequal_shapes_are_refused():
    forcing = ShortcutForcing(PLAIN, 1)
    clean, noise, labels = batch(PLAIN)
    with pytest.raises(ValueError, match="must have one shape"):
        forcing(lambda z, *_: z[:, :1], lambda z, *_: z, clean, noise, labels, torch.ones(B, dtype=clean.dtype))


def test_labels_move_as_one():
    _, _, labels = batch(PLAIN)
    moved = labels.to(torch.device("meta"))
    assert {part.device.type for part in vars(moved).values()} == {"meta"}

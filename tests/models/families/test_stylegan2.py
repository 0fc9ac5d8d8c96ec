"""The style-based GAN: its parts compose, its styles can be projected, its images are functions of their latents."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import first_layer_directions, weights
from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.sefa import sefa
from orthogan.latent.traverse import traverse
from orthogan.layers.householder_projector import HouseholderProjector
from orthogan.models.families import modulation
from orthogan.models.families.modulation import EqualLinear, StyledConv
from orthogan.models.families.style_based import WSpace
from orthogan.models.families.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator, project_styles
from orthogan.weights.effective import effective_weight


def generator(
    size: int = 32, *, channels: int = 2, classes: int = 0, colours: int = 3, **options: object
) -> StyleGAN2Generator:
    """With noise that has a strength, and w_mean away from zero."""
    torch.manual_seed(0)
    net = StyleGAN2Generator(
        resolution=size,
        image_channels=colours,
        channels=channels,
        latent_dim=6,
        num_classes=classes,
        mapping_layers=2,
        **options,
    )
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, StyledConv) and part.noise_strength is not None:
                part.noise_strength.fill_(0.2)
    net.w_mean.copy_(0.3 * torch.randn(net.w_dim))
    return net


def discriminator(
    size: int = 32, *, channels: int = 2, classes: int = 0, colours: int = 3, **options: bool
) -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    return StyleGAN2Discriminator(
        resolution=size, image_channels=colours, channels=channels, num_classes=classes, **options
    )


def labels(n: int, classes: int) -> Tensor | None:
    return torch.arange(n) % classes if classes else None


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize(("colours", "classes"), [(3, 0), (1, 4)])
def test_shapes(size: int, colours: int, classes: int) -> None:
    net = generator(size, channels=1, colours=colours, classes=classes)
    z, y = net.sample_latent(2, seed=3), labels(2, classes)
    images = net(z, y)
    assert images.shape == (2, colours, size, size)
    assert discriminator(size, channels=1, colours=colours, classes=classes)(images, y).shape == (2,)
    assert net.num_ws == 2 * int(math.log2(size)) - 2  # as the paper counts them: 18 at 1024 px
    assert net.mapping(z, y).shape == (2, net.w_dim)


def test_widths_stop_at_512_but_never_below_what_is_asked_for() -> None:
    with torch.device("meta"):
        nets = [generator(64, channels=channels) for channels in (16, 64, 600)]
    widths = [[block.conv.out_channels for block in net.blocks] for net in nets]
    assert widths == [[256, 128, 64, 32, 16], [512, 512, 256, 128, 64], [600] * 5]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("training", [True, False])
def test_the_image_is_the_synthesis_of_the_mapping(classes: int, training: bool) -> None:
    net = generator(classes=classes).train(training)
    z, y = net.sample_latent(3, seed=0), labels(3, classes)
    seeds = modulation.latent_seeds(z) if training else None
    w = net.mapping(z, y)
    want = net.synthesis(w, seeds)
    torch.testing.assert_close(net(z, y), want, rtol=0, atol=0)
    assert torch.equal(net.synthesis(w[:, None].expand(-1, net.num_ws, -1), seeds), want)


def test_the_generator_is_the_published_skip_architecture() -> None:
    net = generator(channels=3).double().eval()
    z = net.sample_latent(2, seed=0).double()
    h = z / z.square().mean(1, keepdim=True).sqrt()
    for layer in net.mapper.layers:
        h = functional.leaky_relu(h @ layer.weight.T * 0.01 / math.sqrt(6) + 0.01 * layer.bias, 0.2) * 2**0.5
    torch.testing.assert_close(net.mapping(z), h, rtol=1e-5, atol=1e-8)
    ws = torch.randn(2, net.num_ws, 6).double()
    x, image, row = net.constant.expand(2, -1, -1, -1), 0.0, 0
    for i, block in enumerate(net.blocks):
        if i:
            x, row = block.up(x, ws[:, row]), row + 1
            image = functional.interpolate(image, scale_factor=2, mode="bilinear")
        x, row = block.conv(x, ws[:, row]), row + 1
        image = image + block.to_rgb(x, ws[:, row])
    assert row == net.num_ws - 1  # the last one is that of the last image alone
    torch.testing.assert_close(net.synthesis(ws), image)


def test_every_row_of_ws_reaches_the_layers_that_say_so() -> None:
    net = generator().double().eval()
    rows, taken = net.style_rows(), {}
    names = {layer: name for name, layer in net.style_layers()}
    assert list(rows) == list(names.values())
    for layer in names:
        layer.register_forward_pre_hook(lambda part, inputs: taken.__setitem__(names[part], inputs[0]))
    ws = torch.randn(2, net.num_ws, 6).double()
    net.synthesis(ws)
    assert set(taken) == set(rows)
    assert all(torch.equal(taken[name], ws[:, row]) for name, row in rows.items())
    assert sorted(set(rows.values())) == list(range(net.num_ws))
    assert [row for name, row in rows.items() if ".up." in name] == [1, 3, 5]


def test_truncation_goes_from_the_mean_image_to_the_image() -> None:
    net = generator().eval()
    w = net.mapping(net.sample_latent(3, seed=0))
    mean = net.synthesis(net.w_mean[None])
    for row in net.synthesis(net.truncate(w, 0)):
        torch.testing.assert_close(row, mean[0])
    assert torch.equal(net.truncate(w, 1), w)
    torch.testing.assert_close(net.truncate(w, 0.7), net.w_mean + 0.7 * (w - net.w_mean))
    ws = net.truncate(w, 0, cutoff=3)
    assert ws.shape == (3, net.num_ws, 6)
    assert torch.equal(ws[:, :3], net.w_mean.expand(3, 3, -1))
    assert torch.equal(ws[:, 3:], w[:, None].expand(-1, 5, -1))
    assert torch.equal(net.truncate(ws, 0.5, cutoff=8), net.truncate(ws, 0.5))
    with pytest.raises(ValueError, match="cutoff is 9: this generator has 8 styles"):
        net.truncate(w, 0.5, cutoff=9)


def test_the_mean_of_w_follows_training_and_stands_still_otherwise() -> None:
    net = generator()
    net.w_mean.zero_()
    z = net.sample_latent(64, seed=0)
    w = net.eval().mapping(z).detach()
    assert float(net.w_mean.abs().max()) == 0
    net.train().mapping(z)
    torch.testing.assert_close(net.w_mean, 0.002 * w.mean(0), rtol=1e-3, atol=1e-9)
    for _ in range(99):
        net.mapping(z)
    torch.testing.assert_close(net.w_mean, (1 - 0.998**100) * w.mean(0), rtol=1e-3, atol=1e-8)


def test_an_image_is_a_function_of_its_latent_alone_in_both_modes() -> None:
    net = generator()
    z = net.sample_latent(4, seed=0)
    for training in (False, True):
        net.train(training)
        images = net(z)
        torch.manual_seed(1)
        assert torch.equal(net(z), images)
        torch.testing.assert_close(net(z[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    # in training each image has noise of its own, in eval mode all share one
    same = z[:1].expand(2, -1) * torch.tensor([[1.0], [2.0]])  # one w: pixel norm drops the length
    torch.testing.assert_close(net.mapping(same)[0], net.mapping(same)[1])
    moved = net(same)
    assert float((moved[0] - moved[1]).detach().abs().max()) > 0.01
    still = net.eval()(same)
    torch.testing.assert_close(still[0], still[1], rtol=1e-4, atol=1e-5)


def test_noise_can_be_frozen_or_left_out() -> None:
    net, silent = generator(), generator(noise=False)
    keys = set(net.state_dict())
    assert sum("noise" in name for name, _ in net.named_parameters()) == 7
    z = net.sample_latent(2, seed=0)
    assert not torch.allclose(net(z), silent(z), atol=1e-3)
    net.freeze_noise(0.0)
    assert set(net.state_dict()) == keys
    assert not any("noise" in name for name, _ in net.requires_grad_(True).named_parameters())
    torch.testing.assert_close(net(z), silent(z))
    assert not any("noise" in name for name in silent.state_dict())


def test_the_image_is_twice_differentiable_in_z_for_path_length_regularisation() -> None:
    net = generator()
    z = net.sample_latent(2, seed=0).requires_grad_(True)
    w = net.mapping(z)
    images = net.synthesis(w)
    probe = torch.randn_like(images) / math.sqrt(images[0, 0].numel())
    for at in (w, z):
        (slope,) = torch.autograd.grad((images * probe).sum(), at, create_graph=True)
        net.zero_grad()
        slope.square().sum(1).sqrt().sub(1).square().mean().backward(retain_graph=True)
        silent = {name for name, p in net.named_parameters() if p.grad is None}
        # what adds to the image without w does not change the slope
        assert silent <= {n for n, _ in net.named_parameters() if n.endswith(("to_rgb.bias", "layers.1.bias"))}, silent
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.mapper.layers[0].weight.grad.abs().max() > 0


def test_gradients_of_both_orders_in_z_are_exact() -> None:
    net = generator(channels=1, colours=1).double().eval()
    z = net.sample_latent(1, seed=0).double().requires_grad_(True)
    pixels = torch.tensor([0, 100, 555, 1023])
    # away from the kinks of leaky ReLU, which a step of 1e-6 hardly ever crosses
    assert torch.autograd.gradcheck(lambda z: net(z).flatten(1)[:, pixels], z)
    assert torch.autograd.gradgradcheck(lambda z: net(z).flatten(1)[:, pixels[:2]], z)


def test_the_discriminator_is_the_published_residual_one() -> None:
    net = discriminator(channels=3).double()
    x = torch.randn(8, 3, 32, 32).double()
    h = functional.leaky_relu(net.image(x), 0.2) * 2**0.5
    for block in net.blocks:
        inner = functional.leaky_relu(block.conv1(h), 0.2) * 2**0.5
        inner = functional.leaky_relu(block.conv2(inner), 0.2) * 2**0.5
        h = (inner + block.shortcut(h)) / 2**0.5
    assert h.shape == (8, 24, 4, 4)
    deviation = [(h[i : i + 4].var(0, correction=0) + 1e-8).sqrt().mean() for i in (0, 4)]
    extra = torch.stack(deviation).repeat_interleave(4).view(8, 1, 1, 1).expand(-1, -1, 4, 4)
    h = functional.leaky_relu(net.conv(torch.cat([h, extra], 1)), 0.2) * 2**0.5
    h = functional.leaky_relu(net.hidden(h.flatten(1)), 0.2) * 2**0.5
    torch.testing.assert_close(net(x), net.linear(h).squeeze(1))


def test_the_discriminator_sees_other_images_of_the_group_and_none_of_the_other_half() -> None:
    net = discriminator()
    real, fake = torch.randn(2, 4, 3, 32, 32)
    logits = net(torch.cat([real, fake]))
    torch.testing.assert_close(net(torch.cat([real, -3 * fake]))[:4], logits[:4])
    changed = torch.cat([real[:3], 5 * real[3:]])
    assert float((net(torch.cat([changed, fake])) - logits)[0].detach().abs()) > 1e-5


def test_the_start_has_images_and_logits_of_moderate_size() -> None:
    net = generator(channels=8)
    images = net(net.sample_latent(16, seed=0)).detach()
    assert 0.3 < float(images.std()) < 6
    logits = discriminator(channels=8)(torch.randn(16, 3, 32, 32)).detach()
    assert float(logits.std()) < 3
    assert float(logits.std()) > 0.01


def test_double_backward_reaches_every_weight_of_the_discriminator() -> None:
    net = discriminator(classes=3)
    x = torch.randn(4, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x, labels(4, 3)).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None and p.dim() > 1] == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_class_changes_the_image_and_the_logit_and_labels_must_fit() -> None:
    net, judge = generator(classes=3), discriminator(classes=3)
    z = net.sample_latent(1, seed=0).expand(3, -1)
    images = net(z, torch.arange(3)).detach()
    assert float((images[0] - images[1]).abs().max()) > 0.01
    logits = judge(images[:1].expand(3, -1, -1, -1), torch.arange(3)).detach()
    assert float((logits[0] - logits[1]).abs()) > 1e-5
    for part, x in ((net, z), (judge, images)):
        with pytest.raises((UserError, ValueError), match="conditional: it needs"):
            part(x)
    with pytest.raises(ValueError, match="unconditional"):
        generator()(z, torch.arange(3))


def test_what_it_cannot_be_is_refused() -> None:
    for size in (6, 42, 514):
        with pytest.raises(UserError, match=rf"data\.resolution is {size}.*multiples of 4"):
            generator(size)
        with pytest.raises(UserError, match=rf"data\.resolution is {size}"):
            discriminator(size)
    with pytest.raises(ValueError, match="mapping_layers is 0"):
        StyleGAN2Generator(resolution=32, image_channels=3, channels=2, latent_dim=6, mapping_layers=0)
    net = generator()
    for shape in ((2, 5), (2, 7, 6), (2, 8, 5)):
        with pytest.raises(ValueError, match=r"w has shape.*\(n, 6\) or \(n, 8, 6\)"):
            net.synthesis(torch.zeros(shape))


# styles


def test_projectors_take_the_place_of_the_up_sampling_styles() -> None:
    net = generator().double().eval()
    old = dict(copy.deepcopy(net).style_layers())
    names = project_styles(net, 4)
    assert names == [f"blocks.{i}.up.affine" for i in (1, 2, 3)]
    for name, layer in net.style_layers():
        assert isinstance(layer, HouseholderProjector) == (name in names)
    for name in names:
        new, before = net.get_submodule(name), old[name]
        values = torch.linalg.svdvals(new.weight.detach())
        torch.testing.assert_close(values[:4], torch.ones(4).double())
        assert float(values[4:].norm()) < 1e-9
        torch.testing.assert_close(new.bias, before.bias)
        # the nearest one: U V^T of the leading directions of the weight that was there
        u, _, vt = torch.linalg.svd(effective_weight(before).detach(), full_matrices=False)
        torch.testing.assert_close(new.weight, u[:, :4] @ vt[:4])
    images = net(net.sample_latent(2, seed=0).double())
    images.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.get_submodule(names[0]).right.grad.abs().max() > 0


def test_only_the_directions_of_a_projector_change_the_image_at_its_layer() -> None:
    net = generator().double().eval()
    (name,) = project_styles(net, 3, "blocks.2.up.affine")
    row = net.style_rows()[name]
    directions = net.get_submodule(name).directions().detach()
    _, _, basis = torch.linalg.svd(directions)
    ws = net.mapping(net.sample_latent(1, seed=0).double()).detach()[:, None].repeat(1, net.num_ws, 1)
    base = net.synthesis(ws)
    for i, direction in enumerate(basis):
        moved = ws.clone()
        moved[:, row] += direction
        change = float((net.synthesis(moved) - base).detach().abs().max())
        # the image of the block before takes the same row, and all of w moves it
        assert change > 1e-3
        with torch.no_grad():
            style = (net.get_submodule(name)(moved[:, row]) - net.get_submodule(name)(ws[:, row])).norm()
        assert float(style) == pytest.approx(1.0 if i < 3 else 0.0, abs=1e-9)


def test_a_net_with_projectors_can_be_built_and_filled() -> None:
    net = generator(style_rank=4)
    other = copy.deepcopy(generator())
    assert project_styles(other, 4) == [n for n, part in net.named_modules() if isinstance(part, HouseholderProjector)]
    other.load_state_dict(net.state_dict())
    z = net.sample_latent(2, seed=0)
    assert torch.equal(other.eval()(z), net.eval()(z))


def test_layers_that_cannot_be_projected_are_refused_and_nothing_is_replaced() -> None:
    net = generator()
    keys = set(net.state_dict())
    with pytest.raises(ValueError, match=r"'blocks\.9.*' matches nothing in the style layers.*blocks\.0\.conv\.affine"):
        project_styles(net, 2, ["*.up.affine", "blocks.9.*"])
    with pytest.raises(ValueError, match=r"blocks\.3\.conv\.affine: rank is 4.*1 to 2"):
        project_styles(net, 4, "*.conv.affine")
    assert set(net.state_dict()) == keys
    with pytest.raises(ValueError, match="Linear has no style layers"):
        project_styles(nn.Linear(2, 2))
    project_styles(net, 2)
    with pytest.raises(ValueError, match=r"blocks\.1\.up\.affine: HouseholderProjector"):
        project_styles(net, 2)


def test_sefa_in_w_is_the_published_eigendecomposition() -> None:
    net = generator(channels=4).eval()
    view = WSpace(net)
    found = sefa(view, normalise=True)
    stacked = torch.cat([layer.weight.detach() for _, layer in net.style_layers()]).double()
    unit = stacked / stacked.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(unit.T @ unit)
    np.testing.assert_allclose(found.scores["sigma"], values.flip(0).sqrt(), rtol=1e-5)
    overlap = np.abs((found.matrix * vectors.flip(1).T.numpy()).sum(1))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)
    one = sefa(view, layer="generator.blocks.1.up.affine")
    layer = dict(net.style_layers())["blocks.1.up.affine"]
    weight = layer.weight.detach() * layer.gain  # as it is applied, and as the stack counts it
    np.testing.assert_allclose(one.scores["sigma"], torch.linalg.svdvals(weight.double()), rtol=1e-5)
    frames = traverse(view, found, dims=[0, 1], steps=3).frames
    assert (frames[0, 0] != frames[0, -1]).any()
    # the same with projectors: the layers that have one stretch their directions by 1, whatever gain there was
    project_styles(net, 2, "blocks.1.up.affine")
    assert float(torch.linalg.matrix_norm(sefa_rows(view, net, "blocks.1.up.affine"), 2)) == pytest.approx(1, rel=1e-5)


def sefa_rows(view: WSpace, net: StyleGAN2Generator, name: str) -> Tensor:
    """The rows of the stacked weight that belong to a layer."""
    start = 0
    for other, layer in net.style_layers():
        size = layer.weight.shape[0]
        if other == name:
            return view.styles.weight.detach()[start : start + size]
        start += size
    raise AssertionError(name)


def test_w_space_is_the_generator_from_its_mean() -> None:
    net = generator(classes=3).eval()
    view = WSpace(net, y=2)
    v = view.sample_latent(3, seed=5)
    z, y = net.sample_latent(3, seed=5), torch.full((3,), 2)
    torch.testing.assert_close(view(v), net(z, y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(view(torch.zeros(1, 6)), net.synthesis(net.w_mean[None]))
    mean = net.w_mean.clone()
    net.train()
    assert torch.equal(view.sample_latent(3, seed=5), v)
    assert torch.equal(net.w_mean, mean)
    assert len(list(view.parameters())) == len(list(net.parameters()))
    twin = copy.deepcopy(view)
    with torch.no_grad():
        twin.generator.blocks[0].conv.affine.weight.zero_()
    assert float(twin.styles.weight[:4].detach().abs().max()) == 0
    assert float(view.styles.weight[:4].detach().abs().max()) > 0
    for y in (None, 3, -1):
        with pytest.raises(UserError, match=f"y is {y}: must be one of the 3 classes"):
            WSpace(net, y=y)
    with pytest.raises(UserError, match="y is 0"):
        WSpace(generator(), y=0)


def test_directions_of_the_first_layer_are_of_the_latent() -> None:
    for classes in (0, 4):
        net = generator(classes=classes)
        assert isinstance(net.first_layer(), EqualLinear)
        found = first_layer_directions(net)
        assert isinstance(found, Directions)
        assert found.matrix.shape == (6, 6)


# what every net here must stand


def test_constraints_go_on_and_train() -> None:
    for kind in ("spectral", "stable_rank", "orthogonal"):
        net, judge = generator(), discriminator()
        weights.apply(net, kind, "!mapper.*")
        weights.apply(judge, kind)
        logits = judge(net(net.sample_latent(2, seed=0)))
        logits.sum().backward()
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(p.grad).all() for p in [*net.parameters(), *judge.parameters()] if p.grad is not None)


def test_deepcopy_and_state_dict_carry_the_same_function() -> None:
    net, judge = generator(classes=2), discriminator(classes=2)
    z, y = net.sample_latent(2, seed=1), torch.arange(2)
    torch.manual_seed(9)
    other = StyleGAN2Generator(
        resolution=32, image_channels=3, channels=2, latent_dim=6, num_classes=2, mapping_layers=2
    )
    assert not torch.allclose(other(z, y), net(z, y))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.w_mean, net.w_mean)
    assert torch.equal(other(z, y), net(z, y))
    assert torch.equal(copy.deepcopy(net)(z, y), net(z, y))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(judge)(x, y), judge(x, y))


def test_two_forwards_before_one_backward() -> None:
    net, twin = generator().double(), generator().double()
    z = net.sample_latent(4, seed=0).double()

    def loss(net: StyleGAN2Generator, z: Tensor) -> Tensor:
        return net.synthesis(net.truncate(net.mapping(z), 0.5)).pow(2).sum()

    mean = net.w_mean.clone()
    first = loss(net, z)
    loss(net, 2 - z)
    first.backward()
    twin.w_mean.copy_(mean)
    loss(twin, z).backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_it_compiles_into_one_graph() -> None:
    net, judge = generator(classes=2, style_rank=2), discriminator(classes=2)
    twin = copy.deepcopy(net)
    z, y = net.sample_latent(2, seed=1), torch.arange(2)
    want = net(z, y)
    torch.testing.assert_close(
        torch.compile(twin, fullgraph=True, backend="aot_eager")(z, y), want, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(twin.w_mean, net.w_mean)
    judged = torch.compile(judge, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(judged(want, y), judge(want, y), rtol=1e-4, atol=1e-5)


def test_autocast_gives_nearly_the_same_images() -> None:
    for options in ({}, {"style_rank": 2}):
        net, judge = generator(channels=4, **options), discriminator(channels=4)
        z = net.sample_latent(4, seed=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            w = net.mapping(z)
            images = net(z)
            logits = judge(images)
        assert torch.equal(w, net.mapping(z))
        assert images.dtype == torch.float32  # the sum over sizes is not rounded again and again
        assert float((images - net(z)).detach().abs().mean()) < 0.02 * float(images.detach().std())
        torch.testing.assert_close(logits.float(), judge(net(z)), atol=0.1, rtol=0.1)


def test_bfloat16_weights_run_too() -> None:
    net = generator().eval()
    z = net.sample_latent(2, seed=0)
    want = net(z).detach()
    found = net.bfloat16()(z).detach()
    assert float((found - want).abs().mean()) < 0.05 * float(want.std())


def test_channels_last_is_the_same_function() -> None:
    net, judge = generator(), discriminator()
    twins = [copy.deepcopy(n).to(memory_format=torch.channels_last) for n in (net, judge)]
    z = net.sample_latent(2, seed=1)
    images = net(z)
    torch.testing.assert_close(twins[0](z), images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        twins[1](images.contiguous(memory_format=torch.channels_last)), judge(images), rtol=1e-3, atol=1e-4
    )

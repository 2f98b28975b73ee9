"""Heads of other papers that attend, relate or fuse: their formulas against loops, their starts, their gradients."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssr_lib.files import load_part
from ssr_lib.pooling import gem, spoc

THREE, ATTEND = {"mid_channels": 3}, {"mid_channels": 4, "attention_heads": 2}
IDENTITY = {"solar": {}, "glam": THREE, "self_correlation": THREE, "spatial_context": {"types": 3, "radius": 2}}
IDENTITY["cross_attention"] = ATTEND | {"window": 3}
HEADS = IDENTITY | {"token": ATTEND | {"tokens": 3}, "delg": THREE, "dolg": THREE, "local_global_tokens": {}}
MID, LAST = [*product(range(7), range(5))], [*product(range(4), range(3))]  # places


def inputs():
    torch.manual_seed(0)
    mid = torch.randn(16, 7, 5, 5).double().permute(0, 3, 1, 2)  # channels last in memory, as stored maps are
    step, project = nn.Conv2d(5, 6, 1).double(), nn.Conv2d(6, 8, 1).double().requires_grad_(False)
    return mid, step(F.adaptive_avg_pool2d(mid, (4, 3))).detach(), project


def start(kind):
    return load_part(kind, "heads").Head((5, 6, 8), seed=3, **HEADS[kind]).double().eval()


def rows(layers, x):  # (N, c) each
    return [layer(x)[0].flatten(1).T for layer in layers]


def solar(head, mid, x):
    q, k, v = rows((head.query, head.key, head.value), x)
    found = [(k @ q_p / math.sqrt(3)).softmax(0) @ v for q_p in q]
    return x + head.expand(torch.stack(found).T.view(1, 3, *x.shape[2:]))


def glam(head, mid, x):
    f, mean, (w_l, w_g, w) = x[0].flatten(1), spoc(x)[:, None], head.weights  # f: (C, N)
    a_c = head.channel(mean).sigmoid().view(-1, 1)
    a_s = head.spatial(torch.cat([scale(head.reduce(x)) for scale in head.scales], 1)).flatten()
    q, k = head.query_c(mean).sigmoid()[0, 0], head.key_c(mean).sigmoid()[0, 0]
    g_c = torch.stack([(k * q_c).softmax(0) @ f for q_c in q])
    q, k, v = rows((head.query_s, head.key_s, head.value_s), x)
    g_s = torch.stack([head.expand(((k @ q_p).softmax(0) @ v)[:, None, None]).flatten() for q_p in q]).T
    return (w_l * f * (1 + a_c) * (1 + a_s) + w_g * f * g_c * (1 + g_s) + w * f).view(x.shape)


def self_correlation(head, mid, x):
    f, out = F.pad(F.normalize(x.relu(), dim=1), (2, 2, 2, 2)), x.clone()
    for h, w in LAST:
        r = f[:, :, h : h + 5, w : w + 5] * f[:, :, h + 2, w + 2, None, None]
        out[:, :, h, w] += head.expand(head.encoder(head.reduce(6 * r)))[:, :, 0, 0]
    return out


def spatial_context(head, mid, x):
    a, u = head.assign(x).softmax(1), x.new_zeros(1, 6, *x.shape[2:])
    for (h, w), r in product(LAST, (1, 2)):
        ring = [a[0, :, i, j] for i, j in LAST if round(math.dist((h, w), (i, j))) == r]
        u[0, r - 1 :: 2, h, w] = sum(ring) / len(ring)
    return x + head.expand(u)


def cross_attention(head, mid, x):
    z = head.norm(head.reduce(mid)[0].permute(1, 2, 0))  # (H, W, c)
    y = z.clone()
    for h, w in MID:
        window = z[h - h % 3 :, w - w % 3 :][:3, :3].flatten(0, 1)
        y[h, w] += head.windows(z[h, w, None], window, window)[0][0]
    y = (2 * (y @ head.spatial.weight.flatten() + head.spatial.bias).sigmoid()[..., None] * y).flatten(0, 1)
    return x + head.expand(head.across(head.norm_query(head.query(x)[0].T), y, y)[0].T.view(1, 4, *x.shape[2:]))


def token(head, mid, x):
    (f,) = rows([head.reduce], x)
    f = f + head.among_places.attention(f, f, f)[0]
    a = head.assign(f).softmax(1)
    t = head.norm(torch.stack([sum(a[p, i] * f[p] for p in range(len(f))) / a[:, i].sum() for i in range(3)]))
    for block in head.refinement:
        t = t + block.among.attention(*[block.norms[0](t)] * 3)[0]
        t = t + block.across.attention(block.norms[1](t), f, f)[0]
        t = t + block.mlp(block.norms[2](t))
    return t.view(1, -1)


def delg(head, mid, x):
    a, s = F.softplus(head.attention(mid)).flatten(), mid[0].flatten(1)
    return torch.cat([head.norm_global(gem(x)), head.norm_local((s @ (a / a.sum()))[None])], 1)


def dolg(head, mid, x):
    f_g, (f_l,) = gem(x)[0], rows([head.local], mid)
    orthogonal = torch.stack([f - (f @ f_g) / (f_g @ f_g) * f_g for f in f_l])
    return torch.cat([head.norm_global(f_g[None]), head.norm_local(orthogonal.mean(0)[None])], 1)


@pytest.mark.parametrize("naive", [solar, glam, self_correlation, spatial_context, cross_attention, token, delg, dolg])
def test_feature_is_what_the_paper_writes_down(naive):
    (mid, last, project), head = inputs(), start(naive.__name__)
    for parameter in head.parameters():  # away from the start
        nn.init.normal_(parameter, 0, 0.4)
    identity = naive.__name__ in IDENTITY
    for i in range(2):
        found = naive(head, mid[i, None], last[i, None] if identity else project(last[i, None]))
        torch.testing.assert_close(head(mid, last, project)[i, None], gem(project(found)) if identity else found)
    head, maps = head.float().to(memory_format=torch.channels_last), (mid.float(), last.float())  # as a network does
    assert head(*maps, project.float()).isfinite().all(), "other kernels give other strides"


@pytest.mark.parametrize("kind", HEADS)
def test_start_is_the_one_named_steps_move_every_parameter_and_the_gradient_is_the_numerical_one(kind):
    (mid, last, project), head = inputs(), start(kind)
    if hasattr(head, "fit"):
        head.fit(iter([(mid, last, project)]))
    whole, x = gem(project(last)), project(last).movedim(1, 3).flatten(0, 2)  # (B, C), (N, C)
    if kind in IDENTITY:
        assert torch.equal(head(mid, last, project), whole)
    elif kind == "token":  # the nearest centre gets ten times what the second gets
        nearest = head.assign(F.linear(x, head.reduce.weight.flatten(1), head.reduce.bias)).topk(2).values
        torch.testing.assert_close((nearest[:, 0] - nearest[:, 1]).mean().exp().item(), 10.0)
    elif kind == "dolg":  # the regression
        found = head.expand(F.adaptive_avg_pool2d(mid, (4, 3))).movedim(1, 3).flatten(0, 2)
        torch.testing.assert_close(found - found.mean(0), x - x.mean(0), rtol=0, atol=0.01)
        tail = nn.Sequential(nn.AvgPool2d(2), project)  # end to end it halves the map
        head.fit([(mid, last, tail), (mid[:1], last[:1], tail)])  # the last of one picture
        head.orthogonal, local = False, head.norm_local(head.local(mid).mean(dim=(2, 3)))
        torch.testing.assert_close(head(mid, last, project)[:, 8:], local)
        head.orthogonal = True
    else:
        both = torch.cat([whole, spoc(mid if kind == "delg" else last)], dim=1)
        torch.testing.assert_close(head(mid, last, project), (both - both.mean(0)) / (both.var(0) + 1e-5).sqrt())
    before = {name: p.clone() for name, p in head.named_parameters()}
    optimizer = torch.optim.Adam(head.train().parameters(), lr=0.2)
    for _ in range(3):
        (head(mid, last, project) * torch.randn(16, head.width)).sum().backward()
        optimizer.step()
    assert [name for name, p in head.named_parameters() if torch.equal(p, before[name])] == []
    if kind == "local_global_tokens":
        nn.init.normal_(head.eval().join.weight)
        y = head.join(torch.cat([F.adaptive_avg_pool2d(mid, (4, 3)), last], dim=1))
        local = head.norm_local((y + head.locality(y)).mean(dim=(2, 3)))
        torch.testing.assert_close(head(mid, last, project)[:, 8:], local)
    torch.autograd.gradcheck(lambda x: head.eval()(mid[:1], x, project), last[:1].requires_grad_(), fast_mode=True)

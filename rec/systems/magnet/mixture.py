"""MAGNET's experts, router and trigger: see rec.systems.magnet.

Letters: N nodes, P (user, item) pairs, A streams (behaviour and M modalities), D width, E experts, X = A D.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from rec.moe.balance import assignments
from rec.moe.dispatch import order_by_expert
from rec.moe.experts import Experts
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.ranks import Later
from rec.moe.routing import Routing, keep_all, keep_top_k
from rec.systems.magnet.config import MagnetConfig, TriggerConfig

FIXED = 1_000_000_000
"""Entropies are kept as whole numbers of this part, so that a model in bfloat16 loses none."""
SLOPE = 0.2


class Trigger(nn.Module):
    """Turns from coverage to specialisation, once; its state is part of every checkpoint.

    The same on every rank, as it sees the counts of the global batch alone.
    """

    state: Tensor

    def __init__(self, config: TriggerConfig, experts: int) -> None:
        super().__init__()
        self.config, self.experts = config, experts
        # Steps, steps in a row above the threshold, step of the switch and smoothed entropy (both -1 at first).
        self.register_buffer("state", torch.tensor([0, 0, -1, -1]))

    @property
    def ramp(self) -> float:
        """How far specialisation has come, in [0, 1]."""
        steps, _, switched, _ = self.state.tolist()
        return 0.0 if switched < 0 else min(1.0, (steps - switched) / self.config.ramp)

    @property
    def steps(self) -> int:
        """Optimiser steps so far."""
        return int(self.state[0])

    @property
    def entropy(self) -> float:
        """The smoothed entropy of use, in [0, 1]; 0 before the first step."""
        return max(0, int(self.state[3])) / FIXED

    @property
    def switched(self) -> int:
        """The step of the switch, -1 before it."""
        return int(self.state[2])

    def observe(self, count_E: Tensor) -> None:
        """Take in one optimiser step's assignments."""
        config = self.config
        steps, row, switched, smoothed = self.state.tolist()
        share_E = (count_E / count_E.sum().clamp(min=1)).double()
        entropy = float(-torch.special.xlogy(share_E, share_E).sum()) / math.log(self.experts)
        now = entropy if smoothed < 0 else config.smoothing * smoothed / FIXED + (1 - config.smoothing) * entropy
        steps += 1
        if switched < 0:
            row = row + 1 if steps > config.warmup and now > config.threshold else 0
            due = row >= config.window if config.kind == "entropy" else steps >= config.step
            switched = steps if due else -1
        self.state.copy_(torch.tensor([steps, row, switched, round(now * FIXED)]))


class RoleExperts(Experts):
    """Experts that weigh streams by a template of their role, with a layer of their own where that is asked for."""

    template_EA: Tensor

    def __init__(self, config: MagnetConfig) -> None:
        super().__init__()
        streams = len(config.streams_of)
        template = []
        for anchor in range(streams):
            for share in (config.roles.dominant, config.roles.balanced, config.roles.complementary):
                row = torch.full((streams,), (1 - share) / (streams - 1))
                row[anchor] = share
                template.append(row)
        self.num_experts = len(template)
        self.register_buffer("template_EA", torch.stack(template), persistent=False)
        self.free_EA = nn.Parameter(self.template_EA.log()) if config.templates == "free" else None
        width = config.width
        self.weight_EXD = None
        if config.expert == "mlp":
            self.weight_EXD = nn.Parameter(torch.randn(self.num_experts, streams * width, width) * 0.05)

    @property
    def shares_EA(self) -> Tensor:
        """Each expert's share of every stream."""
        return self.template_EA if self.free_EA is None else self.free_EA.softmax(1)

    def shares_of(self, present_NA: Tensor) -> Tensor:
        """Return each expert's shares where what is missing gives its own to what is there, (N, E, A)."""
        share_NEA = self.shares_EA * present_NA[:, None]
        return share_NEA / share_NEA.sum(2, keepdim=True)

    def of_nodes(self, stack_NAD: Tensor, present_NA: Tensor | None = None) -> Tensor:
        """Return what every expert makes of nodes, (E, N, D); None stands for nodes that miss nothing."""
        share_EA = self.shares_EA
        if present_NA is None:
            weighed_ENAD = share_EA[:, None, :, None] * stack_NAD
        else:
            share_NEA = self.shares_of(present_NA).to(stack_NAD.dtype)
            weighed_ENAD = share_NEA.transpose(0, 1)[..., None] * stack_NAD
        y_END = weighed_ENAD.sum(2)
        if self.weight_EXD is not None:
            y_END = y_END + nn.functional.leaky_relu(torch.bmm(weighed_ENAD.flatten(2), self.weight_EXD), SLOPE)
        return y_END

    def of_pairs(self, user_PAD: Tensor, item_PAD: Tensor, present_PA: Tensor | None) -> Tensor:
        """Return every expert's score of pairs, <f(user), f(item)>, (P, E)."""
        if self.weight_EXD is not None:
            return (self.of_nodes(user_PAD) * self.of_nodes(item_PAD, present_PA)).sum(2).T
        share_EA = self.shares_EA
        gram_PAA = torch.bmm(user_PAD, item_PAD.transpose(1, 2))
        seen_PEA = torch.matmul(share_EA, gram_PAA)
        if present_PA is None:
            return (seen_PEA * share_EA).sum(2)
        return (seen_PEA * self.shares_of(present_PA)).sum(2)


class PairRouter(nn.Module):
    """Scores experts by the streams in which user and item agree: kappa sum_a <u_a * w_ea, i_a> + b_e, unit vectors."""

    def __init__(self, config: MagnetConfig, experts: int) -> None:
        super().__init__()
        self.kappa = config.kappa
        self.weight_EX = nn.Parameter(torch.randn(experts, len(config.streams_of) * config.width) * 0.1)
        self.bias_E = nn.Parameter(torch.zeros(experts))
        self.requires_grad_(config.mixture != "random")

    def forward(self, user_PAD: Tensor, item_PAD: Tensor) -> Tensor:
        """Return the scores of all experts, float32 (P, E)."""
        meet_PX = (unit(user_PAD) * unit(item_PAD)).flatten(1)
        return self.kappa * meet_PX.float() @ self.weight_EX.float().T + self.bias_E.float()


class RoleMixture(MixtureOfExperts):
    """The mixture over pairs: all experts' scores, of which the router's best count.

    Experts are so small that all are computed for all pairs: no dispatch.
    """

    router: PairRouter
    experts: RoleExperts

    def __init__(self, config: MagnetConfig) -> None:
        experts = RoleExperts(config)
        super().__init__(PairRouter(config, experts.num_experts), experts)
        self.config = config
        trigger = config.trigger
        if not config.routing_terms:
            trigger = trigger.model_copy(update={"kind": "fixed_step"})
        self.trigger = Trigger(trigger, experts.num_experts)

    def forward(self, user_PAD: Tensor, item_PAD: Tensor, present_PA: Tensor | None) -> Mixed:  # type: ignore[override]
        """Return the mixed scores of pairs, (P, 1), with their routing."""
        score_PE = self.experts.of_pairs(user_PAD, item_PAD, present_PA)
        routing = self.route(user_PAD, item_PAD)
        y_P = (score_PE.gather(1, routing.expert_NK) * routing.weight_NK).sum(1)
        if self.config.shared:
            y_P = (1 - self.config.shared) * y_P + self.config.shared * score_PE.mean(1)
        y_P = self.config.mixture_weight * y_P
        if not self.training:
            order = order_by_expert(routing, self.num_experts)
            return Mixed(y_P[:, None], routing, order, Later(value=order.count_E.double()))
        seen = self.ranks.sum_later(self.usage.observe(routing, assignments(routing)) * float(self.counting))
        self.usage.add(seen, 0)
        order = order_by_expert(routing, self.num_experts)
        return Mixed(y_P[:, None], routing, order, self.whole.of(seen))

    def route(self, user_PAD: Tensor, item_PAD: Tensor) -> Routing:
        """Return the routing of pairs."""
        logit_PE = self.router(user_PAD, item_PAD)
        if self.config.mixture == "off":
            return keep_all(torch.full_like(logit_PE, 1 / self.num_experts) + 0 * logit_PE)
        if self.training and self.config.noise and self.config.mixture == "on":
            sigma = self.config.noise * (1 - self.trigger.ramp)
            logit_PE = logit_PE + sigma * torch.randn_like(logit_PE)
        return replace(keep_top_k(logit_PE.softmax(1), self.config.per_pair), score_NE=logit_PE)

    def shares(self, user_PAD: Tensor, item_PAD: Tensor) -> Tensor:
        """Return each expert's weight in the scores of pairs, (P, E)."""
        shared = self.config.shared
        return (1 - shared) * self.route(user_PAD, item_PAD).dense() + shared / self.num_experts

    def told(self) -> dict[str, float]:
        """Return where the trigger stands."""
        return {"trigger_entropy": self.trigger.entropy, "switched_at": float(self.trigger.switched)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the trigger see what the last step used."""
        self.trigger.observe(self.usage.last_E)


def unit(x_ND: Tensor) -> Tensor:
    """Return vectors of length 1, and zeros where there is nothing."""
    return nn.functional.normalize(x_ND, dim=-1)

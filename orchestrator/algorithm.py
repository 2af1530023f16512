"""The algorithm with one setting's values in it, as pseudo-code. METHOD §2; `trainables.distillation`."""

from collections.abc import Mapping
from typing import Any

__all__ = ["pseudo_code"]


def pseudo_code(settings: Mapping[str, Any]) -> str:
    """Return a distillation, line by line, with the values of one resolved setting.

    Args:
        settings: Every key of the vocabulary, T and T_plus.
    """
    if settings["method"] != "trajectory":
        return _of_real_images(settings)
    s, soft = settings, settings["label_mode"] == "soft"
    last = "U" if s["range_end"] == "inclusive" else "U − 1"
    upper = f"{s['T']}" if s["T"] == s["T_plus"] else f"min({s['T']} + ⌊i / {s['interval']}⌋, {s['T_plus']})"
    learned = "S, α, y" if soft else "S, α"
    average = f"    average: S̄ ← {s['ema_decay']:g}·S̄ + {1 - s['ema_decay']:g}·S" if s["ema_decay"] else None
    floor = f", not below {s['alpha_floor']:g}" if s["alpha_floor"] else ""
    alpha = f"    α ← SGD step, rate {s['lr_alpha']:g}, momentum {s['momentum_alpha']:g}{floor}"
    lines = (
        f"experts: {s['expert_count']} trajectories θ*₀ … θ*_{s['horizon_epochs']}, a snapshot an epoch; "
        f"{s['expert_optimizer']}, rate {s['expert_lr']:g}, batch {s['expert_batch_size']}",
        f"S ← {s['ipc']} {_INITIAL[s['initialization']]} a class",
        f"y ← {'the logits of the experts on S' if soft else 'the classes in default order, fixed'}",
        f"α ← {s['alpha_init']:g}",
        f"for i = 0 … {s['iterations'] - 1}:",
        f"    U ← {upper}",
        f"    draw an expert, and a start epoch t from {s['T_minus']} … {last}",
        "    θ ← θ*_t",
        f"    {s['N']} times: draw up to {s['batch_syn']} images b of S, not yet used, and an augmentation A; "
        "θ ← θ − α ∇_θ CE(θ; A(S_b), y_b)",
        f"    L ← ‖θ − θ*_(t+{s['M']})‖² / ‖θ*_t − θ*_(t+{s['M']})‖²",
        f"    if L > {s['max_matching_loss']:g} or anything is not finite: change nothing, next i",
        f"    ∇ of L with respect to {learned}: {s['gradient']}",
        f"    S ← SGD step, rate {s['lr_pixel']:g}, momentum {s['momentum_pixel']:g}",
        f"    y ← SGD step, rate {s['lr_label']:g}, momentum {s['momentum_label']:g}" if soft else None,
        alpha if s["lr_alpha"] else None,
        average,
        f"result: {'S̄' if average else 'S'}, judged with hard labels in default order",
    )
    return "\n".join(line for line in lines if line is not None)


def _of_real_images(s: Mapping[str, Any]) -> str:
    """Return distribution or gradient matching, METHOD §6, likewise."""
    average = f"    average: S̄ ← {s['ema_decay']:g}·S̄ + {1 - s['ema_decay']:g}·S" if s["ema_decay"] else None
    if s["method"] == "distribution":
        loop = [
            "    θ ← fresh initial parameters",
            f"    L ← Σ_c ‖mean ψ_θ(A(R_c)) − mean ψ_θ(A(S_c))‖², R_c: {s['batch_real']} real images of class c, "
            "ψ: penultimate features",
        ]
    else:
        loop = [
            f"    θ ← fresh initial parameters, once in outer_loop updates of S ({s['outer_loop'] or 'by ipc'})",
            "    L ← Σ_c Σ_layers Σ_rows 1 − cos(∇_θ CE(θ; A(R_c), c), ∇_θ CE(θ; A(S_c), c)), "
            f"R_c: {s['batch_real']} real images of class c",
        ]
    train = f"    θ ← trained on S, rate {s['alpha_init']:g}, as many epochs as inner_loop says"
    lines = (
        f"S ← {s['ipc']} {_INITIAL[s['initialization']]} a class",
        f"for i = 0 … {s['iterations'] - 1}:",
        *loop,
        f"    S ← SGD step down L, rate {s['lr_pixel']:g}, momentum {s['momentum_pixel']:g}, unless it is not finite",
        f"{train} ({s['inner_loop'] or 'by ipc'})" if s["method"] == "gradient" else None,
        average,
        f"result: {'S̄' if average else 'S'}, judged with hard labels in default order",
    )
    return "\n".join(line for line in lines if line is not None)


_INITIAL = {
    "real": "real images",
    "correct": "real images that the experts classify correctly",
    "noise": "images of noise",
}

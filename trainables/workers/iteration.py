"""An iteration of a distillation within the memory of its GPU."""

import torch

from trainables.distillation.learned_images import Update
from trainables.distillation.methods import Distillation
from trainables.distillation.trajectory import Distiller
from trainables.memory_errors import is_gpu_memory_error, refused_without_gpu_memory
from trainables.workers.workbench import Workbench

__all__ = ["iterate"]


def iterate(bench: Workbench, distiller: Distillation) -> Update:
    """Run an iteration; if the GPU's memory does not suffice, run it again.

    First no graphs are kept, which changes no value; then half the images are taken at a time. The distiller does not
    change its state before the gradient is computed, so the iteration can be repeated. The unrolled gradient has no
    micro-batches, and is not tried again.

    Raises:
        ConfigError: The memory does not suffice.
    """
    config = distiller.config
    matches = isinstance(distiller, Distiller)
    if matches and config.gradient == "unrolled":
        what = f"with the graphs of N = {config.N} steps of batch_syn = {config.batch_syn} images (gradient=unrolled)"
        with refused_without_gpu_memory(what, "set gradient=exact, or lower N or batch_syn"):
            return distiller.step()
    try:
        return distiller.step()
    except RuntimeError as error:
        if not is_gpu_memory_error(error):
            raise
        whole = distiller.micro_batch or min(config.batch_syn, len(distiller.images))
    torch.cuda.empty_cache()
    if isinstance(distiller, Distiller) and distiller.matcher.kept_steps:
        bench.limit(distiller, distiller.micro_batch)
        try:
            return distiller.step()
        except RuntimeError as error:
            if not is_gpu_memory_error(error):
                raise
        torch.cuda.empty_cache()
    half = max(1, whole // 2)
    bench.limit(distiller, half)
    remedy = f"lower --memory-budget or {'batch_syn' if matches else 'batch_real'}"
    with refused_without_gpu_memory(f"with {half} images at a time", remedy):
        return distiller.step()

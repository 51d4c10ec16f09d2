"""Times products, copies and four networks on the NVIDIA card of this machine: python card_measure.py OUT.json

Needs PyTorch with CUDA and `card_models.py` beside it, and nothing of Vivace, so that it can be sent to a card.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812
from card_models import MODELS

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
SHAPES = [(n, n, n) for n in (128, 256, 512, 1024, 2048, 4096, 8192)]
SHAPES += [(m, *kn) for m in (1, 16, 128, 1024, 8192) for kn in ((768, 768), (768, 3072), (1024, 32000), (4096, 4096))]


def paced(run, least=0.08):
    """Seconds of one of many runs that are queued one after the other, by the card's own clock: the best round."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    best, count = 9e9, 1
    while True:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        for _ in range(count):
            run()
        ended.record()
        ended.synchronize()
        seconds = begun.elapsed_time(ended) / 1e3
        if seconds > least / 3:
            best = min(best, seconds / count)
        if seconds > least:
            return best
        count = max(count + 1, int(count * least * 1.3 / max(seconds, 1e-6)))


def calls(run, count=30):
    """The fastest, the median and the slowest of single calls, from a resting card until it rests again."""
    for _ in range(5):
        run()
    times = []
    for _ in range(count):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    times.sort()
    return [times[0], times[count // 2], times[-1]]


def products():
    """[precision, m, k, n, seconds] of m x k by k x n."""
    for name, dtype in DTYPES.items():
        for m, k, n in SHAPES:
            x, w = (torch.randn(*size, dtype=dtype, device="cuda") for size in ((m, k), (n, k)))
            yield [name, m, k, n, paced(lambda x=x, w=w: F.linear(x, w))]


def moves():
    """[bytes, seconds of a copy, of a sum, of a ReLU] of float32 numbers."""
    for power in range(10, 30, 2):
        x = torch.randn(1 << power, device="cuda")
        y = torch.empty_like(x)
        runs = (lambda x=x, y=y: y.copy_(x), lambda x=x, y=y: torch.add(x, x, out=y), lambda x=x: torch.relu(x))
        yield [4 << power, *map(paced, runs)]


def networks():
    """[name, precision, batch, seconds of a call, seconds of a step with AdamW, peak bytes]; None out of memory."""
    for name, (make, give) in MODELS.items():
        for precision, dtype in DTYPES.items():
            for batch in (1, 4, 16, 64) + ((256,) if name != "decoder" else ()):
                try:
                    yield [name, precision, batch, *network(make, give(batch), dtype)]
                except torch.OutOfMemoryError:
                    yield [name, precision, batch, None, None, None]
                torch.cuda.empty_cache()


def network(make, x, dtype):
    """Seconds of a call and of a step, and the peak of the step."""
    torch.manual_seed(0)
    model, x = make().to("cuda", dtype), x.cuda()
    x = x.to(dtype) if x.is_floating_point() else x
    optimizer = torch.optim.AdamW(model.parameters())

    def step():
        model(x).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.inference_mode():
        call = calls(lambda: model.eval()(x))
    model.train()
    torch.cuda.reset_peak_memory_stats()
    return call, calls(step), torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    found |= {"products": list(products()), "moves": list(moves()), "models": list(networks())}
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(found, file)

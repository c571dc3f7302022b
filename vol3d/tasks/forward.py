"""A network as the fastest function that this machine has for it: precision, memory format, batch, compiled or not."""

import copy
import hashlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vol3d.errors import is_out_of_memory
from vol3d.files.machine import cpu_name, keep, recall
from vol3d.inference.symmetry import Forward
from vol3d.shapes import Shape3
from vol3d.training.losses import resolutions
from vol3d.training.schedule import Precision

WORTH_MEASURING = 48
"""Passes through the network from which on trying the forms of it pays."""

WORTH_COMPILING = 900.0
"""Seconds of forwards from which on torch.compile, which takes one or two minutes, can pay."""

WIDEST = 64
"""Channels at full resolution to reckon with: cuDNN's convolutions end at 2^31 elements."""

NEVER = 1e9  # seconds; JSON has no infinity
BATCH = 2
"""Windows at once where nothing was measured."""
CACHE = "speed"


@dataclass(frozen=True)
class Timing:
    """Seconds per window of one form of a network."""

    precision: Precision
    batch: int
    compiled: bool
    seconds: float


@dataclass(frozen=True)
class Form:
    """How a network is run, why, and what else was tried."""

    precision: Precision
    batch: int
    compiled: bool = False
    why: str = ""
    tried: tuple[Timing, ...] = ()

    @property
    def seconds(self) -> float:
        """What one window took in this form; 0 where none was timed."""
        same = (t for t in self.tried if (t.precision, t.batch, t.compiled) == (self.precision, self.batch, False))
        return next((timing.seconds for timing in same), 0.0)


@dataclass(frozen=True)
class Wish:
    """What is asked of a form: precision and batch, or auto and measured; pinned where any run must choose the same."""

    precision: Precision | Literal["auto"] = "auto"
    batch: int | Literal["measured"] = "measured"
    pinned: bool = False


@dataclass(frozen=True)
class Forwards:
    """The networks of a run on its devices, each made ready once per form, for so many volumes that are alike."""

    devices: tuple[torch.device, ...]
    volumes: int = 1
    _ready: dict[tuple[int, Precision, bool], Forward] = field(default_factory=dict, repr=False)

    def form(self, network: nn.Module, channels: int, window: Shape3, wish: Wish, *, passes: int) -> Form:
        """The form for volumes of so many passes each: as wished, as measured here before, measured now, or a guess."""
        passes *= self.volumes
        native = native_precision(self.devices[0]) if wish.precision == "auto" else wish.precision
        batch = BATCH if wish.batch == "measured" else wish.batch
        if wish.pinned:
            return Form(native, 1, why="deterministic")
        if wish.precision != "auto" and wish.batch != "measured":
            return Form(native, batch, why="as asked for")
        key = _key(network, channels, window, self.devices[0], wish)
        found = _kept(recall(CACHE).get(key))
        if found is None:
            if passes < WORTH_MEASURING:
                return Form(native, batch, why=f"{passes} passes are too few to measure; {native} is native here")
            found = self._measured(network, channels, window, wish)
            keep(CACHE, key, asdict(found))
        if passes * found.seconds < WORTH_COMPILING:
            return found
        if not any(timing.compiled for timing in found.tried):
            found = self._with_compiled(network, channels, window, found)
            keep(CACHE, key, asdict(found))
        faster = min(found.tried, key=lambda timing: timing.seconds)
        return replace(found, compiled=faster.compiled)

    def of(self, network: nn.Module, form: Form) -> Forward:
        """Windows (B, C, z, y, x) float32 to logits (B, K, z, y, x) float32, B over all devices at once."""
        each = [self._on(network, form.precision, form.compiled, number) for number in range(len(self.devices))]
        if len(each) == 1:
            return each[0]

        def spread(windows: Tensor) -> Tensor:
            # Kernels are only queued by this thread, so the devices work at the same time.
            parts = zip(each, self.devices, windows.chunk(len(each)), strict=False)
            answers = [forward(part.to(device, non_blocking=True)) for forward, device, part in parts]
            return torch.cat([answer.to(windows.device, non_blocking=True) for answer in answers])

        return spread

    def _on(self, network: nn.Module, precision: Precision, compiled: bool, number: int) -> Forward:
        key = (id(network), precision, compiled)
        if number or key not in self._ready:
            forward = ready(network, precision, self.devices[number], compiled=compiled)
            if number:
                return forward
            self._ready[key] = forward
        return self._ready[key]

    def _measured(self, network: nn.Module, channels: int, window: Shape3, wish: Wish) -> Form:
        """The fastest precision, then the smallest batch that no larger one beats by 3 %."""
        device = self.devices[0]
        first = 1 if wish.batch == "measured" else wish.batch
        choices = [wish.precision] if wish.precision != "auto" else ["float32", native_precision(device)]
        tried = [self._timed(network, channels, window, Form(one, first)) for one in dict.fromkeys(choices)]
        best = min(tried, key=lambda timing: timing.seconds)
        for batch in (2, 4) if device.type == "cpu" else (2, 4, 8, 16, 32):
            if wish.batch != "measured" or batch * math.prod(window) * WIDEST >= 2**31:
                break
            try:
                tried.append(self._timed(network, channels, window, Form(best.precision, batch)))
            except Exception as error:
                if is_out_of_memory(error):
                    break
                raise
            if tried[-1].seconds > 0.97 * best.seconds:
                break
            best = tried[-1]
        return Form(best.precision, best.batch, why="the fastest of those tried on this machine", tried=tuple(tried))

    def _with_compiled(self, network: nn.Module, channels: int, window: Shape3, form: Form) -> Form:
        """The form with a timing of it compiled; NEVER where it cannot be, so that it is not tried again."""
        try:
            timing = self._timed(network, channels, window, replace(form, compiled=True))
        except RuntimeError:  # torch has a class for each of the many ways in which its compiler gives up
            timing = Timing(form.precision, form.batch, True, NEVER)
        return replace(form, tried=(*form.tried, timing))

    def _timed(self, network: nn.Module, channels: int, window: Shape3, form: Form) -> Timing:
        forward = self._on(network, form.precision, form.compiled, 0)
        windows = torch.zeros((form.batch, channels, *window), device=self.devices[0])
        seconds = seconds_of(lambda: forward(windows), self.devices[0]) / form.batch
        return Timing(form.precision, form.batch, form.compiled, seconds)


def ready(network: nn.Module, precision: Precision, device: torch.device, *, compiled: bool = False) -> Forward:
    """A network as a function from windows (B, C, z, y, x) float32 to full-resolution logits, float32.

    Weights and windows are laid out channels last, which convolutions are faster in; bfloat16 is by autocast.
    """
    network = copy.deepcopy(network).eval().to(device)
    for weight in network.parameters():
        if weight.ndim == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    run: Callable[[Tensor], Any] = torch.compile(network) if compiled else network

    def forward(windows: Tensor) -> Tensor:
        windows = windows.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return resolutions(run(windows))[0].float()

    return forward


class SmallerOnOom:
    """A forward that halves the batch it works in when memory runs out, down to single windows."""

    def __init__(self, forward: Forward, batch: int) -> None:
        self.forward, self.batch = forward, batch

    def __call__(self, windows: Tensor) -> Tensor:
        """The same answers, in as many parts as memory makes necessary."""
        while True:
            try:
                parts = [self.forward(part) for part in torch.split(windows, self.batch)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except Exception as error:
                if not is_out_of_memory(error) or min(self.batch, len(windows)) == 1:
                    raise
                self.batch = min(self.batch, len(windows)) // 2
                if windows.device.type == "cuda":
                    torch.cuda.empty_cache()


class OneByOne:
    """A forward on a CPU whose windows are computed alone, each by one thread, as many at once as there are threads.

    A convolution's sums hang on the batch and on the number of threads that share it; a window's answer no longer does.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, windows: Tensor) -> Tensor:
        """The answers, in order."""
        return torch.cat(list(self._pool.map(self._one, torch.split(windows, 1))))

    @torch.inference_mode()  # of that thread
    def _one(self, window: Tensor) -> Tensor:
        return self.forward(window)


def reproducible(forward: Forward) -> Forward:
    """The same on a GPU, by those of cuDNN's kernels alone that add up in one order."""

    def pinned(windows: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            return forward(windows)

    return pinned


@torch.inference_mode()
def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs after one to warm up; the only one of a run that takes seconds."""
    taken: list[float] = []
    while len(taken) < 3:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
        if len(taken) == 2 and taken[1] > 2.0:
            break
    return min(taken[1:])


def native_precision(device: torch.device) -> Precision:
    """bfloat16 where the machine computes it natively: the same answer every time on one machine."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def _key(network: nn.Module, channels: int, window: Shape3, device: torch.device, wish: Wish) -> str:
    """Whatever a form's speed hangs on: the machine, the network's shape, the window, and what is asked for."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    about = (where, torch.__version__, torch.get_num_threads(), str(network), channels, window, wish)
    return hashlib.sha256(repr(about).encode()).hexdigest()


def _kept(plain: object) -> Form | None:
    """A form from the cache; None where it is none."""
    try:
        assert isinstance(plain, dict)
        tried = tuple(Timing(**one) for one in plain["tried"])
        return Form(**{**plain, "tried": tried})
    except (AssertionError, KeyError, TypeError):
        return None

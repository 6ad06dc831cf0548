"""The loader behind open_clip's own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metacurate.needs import needs

with needs("train"):
    import torch

from metacurate.training.loader import Batch, PairLoader


class Normaliser:
    """Turns uint8[n, h, w, 3] into the float32[n, 3, h, w] that a model takes, on a device.

    The channels' means and deviations are copied there once: a copy a step would make the CPU wait
    for the device in every step.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device | str
    ) -> None:
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std)
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images of that device, normalised."""
        channels = images.permute(0, 3, 1, 2).float().div_(255)
        return channels.sub_(self._mean).div_(self._std)


class OpenClipBatches:
    """A loader as open_clip's own training loop takes it: an epoch of (images, tokens) batches."""

    def __init__(
        self,
        loader: PairLoader,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        batches: int,
    ) -> None:
        self._loader, self._normalise = loader, Normaliser(mean, std, loader.device)
        self._iterator: Iterator[Batch] | None = None
        self.num_batches = batches
        self.num_samples = batches * loader.config.global_batch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # Each pass goes on where the last one ended.
        self._iterator = self._iterator or iter(self._loader)
        for _ in range(self.num_batches):
            batch = next(self._iterator)
            yield self._normalise(batch.images), batch.tokens

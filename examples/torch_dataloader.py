"""Embeddings as the features of a torch model: worker processes of a DataLoader encode, the main process trains.

python examples/torch_dataloader.py [grpc://host:port]      needs pip install 'casdk[image]' torch

It paints pictures of warm and of cold colours, and trains a linear layer to tell them apart by their embeddings.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from casdk import Client
from PIL import Image
from torch.utils.data import DataLoader, Dataset

Sample = tuple[Path, int]


class Pictures(Dataset[Sample]):
    """Paths and labels; a picture is read only when its request is written."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Sample:
        return self.samples[position]


class Encoder:
    """Makes a batch of tensors from a batch of samples, in the worker process that runs it.

    The client's configuration is pickled for the worker, and each worker opens a connection of its own.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the pictures of a batch."""
        paths, labels = zip(*samples, strict=True)
        rows = self.client.encode(paths)
        return torch.from_numpy(rows), torch.tensor(labels, dtype=torch.float32)  # on the memory of the rows


def paint(folder: Path, count: int) -> list[Sample]:
    """Paint so many noisy pictures; label 1 is warm, 0 is cold."""
    draw = np.random.default_rng(0)
    samples = []
    for number in range(count):
        warm = number % 2
        colour = np.array([170, 90, 60] if warm else [60, 90, 170])
        pixels = np.clip(colour + draw.normal(0, 50, (48, 48, 3)), 0, 255).astype(np.uint8)
        samples.append((folder / f"{number}.png", warm))
        Image.fromarray(pixels).save(samples[-1][0])
    return samples


def train(loader: DataLoader, width: int) -> torch.nn.Linear:
    """Return a linear layer that was shown every batch a few times."""
    model = torch.nn.Linear(width, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for epoch in range(5):
        total = 0.0
        for rows, labels in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(rows)[:, 0], labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch}: loss {total / len(loader.dataset):.3f}")
    return model


def main(address: str) -> None:
    """Paint, train, and try on pictures that the model has not seen."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, Client(address) as client:
        samples = paint(Path(folder), 240)
        seen, unseen = samples[:200], samples[200:]
        width = client.encode(["how wide is a row?"]).shape[1]
        loader = DataLoader(
            Pictures(seen),
            batch_size=25,
            shuffle=True,
            num_workers=2,
            collate_fn=Encoder(client),
            persistent_workers=True,
        )
        model = train(loader, width)
        rows, labels = Encoder(client)(unseen)
        with torch.no_grad():
            right = ((model(rows)[:, 0] > 0) == (labels > 0.5)).float().mean().item()
    print(f"{right:.0%} of {len(unseen)} unseen pictures are told apart")
    if right < 0.9:
        raise SystemExit("the model has learnt nothing")


if __name__ == "__main__":  # workers that are spawned import this file
    main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:51000")

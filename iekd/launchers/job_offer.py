"""What is asked of the Hub for a job, and what that job would take and cost, before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from iekd.config.run import RunConfig
from iekd.errors import RunError
from iekd.launchers.flavors import Flavor, most_of
from iekd.launchers.sending import Inputs

IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"  # what huggingface_hub itself runs scripts in


@dataclass(frozen=True)
class JobOptions:
    """Args:
    flavor: the kind of machine, see `flavors`. timeout: when the job ends at the latest, such as "2h".
    image: a Docker image with Python, or a Space as hf.co/spaces/ORG/NAME.
    package: what pip installs as iekd; "" for this very program, which is sent along.
    namespace: the organisation that pays; "" for the token's user.
    """

    flavor: str = "t4-small"
    timeout: str = "2h"
    image: str = IMAGE
    package: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Offer:
    """What a run would take and cost as a job. flavors: all, for a choice; low, high: seconds; on_cpu: it is set to use
    no GPU."""

    flavor: Flavor
    flavors: tuple[Flavor, ...]
    limit: float
    low: float
    high: float
    basis: str
    inputs: Inputs
    bucket: str
    on_cpu: bool

    def sentences(self, time_range: str) -> list[str]:
        """To be said before it starts. time_range: from `low` to `high`, in words."""
        price = f"{self.flavor.name} ({self.flavor.title}) costs {self.flavor.price}."
        idle = "The run is set to train on the processor: the GPU would be paid for and not used. Leave device out."
        short = " That may be longer than the job's limit: give it more time." if self.high > self.limit else ""
        return [
            price, most_of(self.flavor, self.limit),
            f"Training takes {time_range} ({self.basis}), and some minutes before that to start and install.{short}",
            *filter(None, [self.inputs.said(self.bucket), idle if self.on_cpu and self.flavor.gpu else ""]),
        ]  # fmt: skip


def check_device(config: RunConfig, flavor: Flavor) -> None:
    """Raises RunError if the run asks for a device that machines of that flavor do not have."""
    wanted = config.device.partition(":")[0]
    if wanted == "mps" or (wanted == "cuda" and not flavor.gpu):
        raise RunError(
            f"The run is set to train on '{config.device}', which the flavor '{flavor.name}' does not have. Leave the "
            "device out, or choose another flavor."
        )
